//! The bytes of v2 HTTP bodies: JSON and binary tensors in, JSON and binary tensors out (W13-W34).

mod classify;
mod data;
mod decode;
mod encode;
mod half;
mod numbers;
mod reader;

pub use decode::{DecodeOptions, ResponseForm, Target, decode};
pub use encode::{Encoded, encode};

use crate::error::InferError;

/// A fault of JSON syntax: what, and at which byte (W13).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    message: &'static str,
    at: usize,
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The text is no JSON.
    Syntax(Fault),
    /// It is JSON, and wrong.
    Wrong(InferError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Syntax(fault)
    }
}

impl Trouble {
    fn text(text: impl Into<String>) -> Self {
        Self::Wrong(InferError::InvalidArgument(text.into()))
    }
}

impl From<Trouble> for InferError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Syntax(Fault { message, at }) => {
                Self::InvalidArgument(format!("failed to parse the request JSON buffer: {message} at {at}"))
            }
            Trouble::Wrong(error) => error,
        }
    }
}
