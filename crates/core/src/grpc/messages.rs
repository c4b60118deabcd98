//! The generated messages, by package; `cargo run -p naiad-codegen` makes them.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

#[rustfmt::skip]
#[path = "gen/inference.rs"]
pub mod inference;

#[rustfmt::skip]
#[path = "gen/grpc.health.v1.rs"]
pub mod health;

#[rustfmt::skip]
#[path = "gen/grpc.reflection.v1.rs"]
pub mod reflection;

/// All of it as reflection shows it.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.binpb");
