//! The bytes of v2 HTTP bodies: JSON and binary tensors in, JSON and binary tensors out (W13-W34).

mod data;
mod decode;
mod encode;
mod generate;
pub(crate) mod half;
mod input;
mod numbers;
mod raw;
mod reader;
mod window;

pub use decode::{DecodeOptions, ResponseForm, Target, decode};
pub use encode::{Encoded, encode};
pub use generate::{decode_generate, encode_generate};

use reader::{Reader, Scalar};

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

    /// With the prefix that carries the request's id; [`decode`] puts it in at the end.
    fn request(text: impl Into<String>) -> Self {
        Self::Wrong(InferError::request("", text))
    }

    fn missing(member: &str) -> Self {
        Self::text(format!("Unable to parse '{member}': attempt to access non-existing object member '{member}'"))
    }

    fn twice(member: &str) -> Self {
        Self::text(format!("Unable to parse '{member}': the object has more than one member '{member}'"))
    }
}

/// Keeps the value of a member; a second one of its name is refused, since readers disagree on which one counts.
fn set_once<T>(slot: &mut Option<T>, member: &str, value: T) -> Result<(), Trouble> {
    if slot.replace(value).is_some() {
        return Err(Trouble::twice(member));
    }
    Ok(())
}

fn text(reader: &mut Reader<'_>, member: &str) -> Result<String, Trouble> {
    match reader.scalar()? {
        Scalar::String(text) => Ok(text.into_owned()),
        _ => Err(Trouble::text(format!("Unable to parse '{member}': attempt to access JSON non-string as string"))),
    }
}

/// An integer that is not negative: no fraction, no exponent (B4).
fn unsigned(member: &str, value: &Scalar<'_>) -> Result<u64, Trouble> {
    match *value {
        Scalar::Int(value) if value >= 0 => Ok(value as u64),
        Scalar::Uint(value) => Ok(value),
        _ => Err(Trouble::text(format!(
            "Unable to parse '{member}': attempt to access JSON non-unsigned-integer as unsigned-integer"
        ))),
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
