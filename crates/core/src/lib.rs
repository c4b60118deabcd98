//! The data plane: listeners, the engine, schedulers and the channels to the workers.
#![forbid(unsafe_code)]

pub mod error;
pub mod request;
pub mod spec;

pub use error::{Code, InferError};
