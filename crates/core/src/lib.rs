//! The data plane: listeners, the engine, schedulers and the channels to the workers.
#![forbid(unsafe_code)]

mod access_log;
pub mod admission;
pub mod auth;
mod base64;
pub mod cache;
mod classify;
pub mod engine;
pub mod error;
pub mod forward;
pub mod grpc;
mod heavy;
pub mod http;
pub mod instance;
pub mod log;
pub mod metrics;
pub mod model;
mod operations;
pub mod options;
pub mod registry;
pub mod request;
mod request_id;
pub mod response_statistics;
pub mod rope;
pub mod scheduler;
pub mod server;
mod server_timing;
pub mod shared_memory;
pub mod spec;
pub mod statistics;
pub mod trace;

pub use engine::{Engine, EngineOptions, Event};
pub use error::{Code, InferError};
