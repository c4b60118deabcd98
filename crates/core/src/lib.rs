//! The data plane: listeners, the engine, schedulers and the channels to the workers.
#![forbid(unsafe_code)]

pub mod admission;
pub mod engine;
pub mod error;
pub mod instance;
pub mod model;
pub mod registry;
pub mod request;
pub mod scheduler;
pub mod spec;
pub mod statistics;

pub use engine::{Engine, EngineOptions, Event};
pub use error::{Code, InferError};
