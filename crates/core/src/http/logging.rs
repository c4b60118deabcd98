//! The log settings over HTTP (W80).

use hyper::Response;
use serde_json::Value;

use super::body::ResponseBody;
use super::error::{HttpError, json};
use super::repository::object;
use super::{Answer, Call};
use crate::error::Code;
use crate::operations::logging::{self, Change};

/// `GET /v2/logging`
pub fn read(call: &Call) -> Response<ResponseBody> {
    json(&logging::read(&call.shared))
}

/// `POST /v2/logging`: all of the changes or none.
pub async fn update(call: &mut Call) -> Answer {
    let body = object(&call.read().await?)?;
    let changes: Vec<_> = body.iter().map(|(name, value)| change(name, value)).collect::<Result<_, _>>()?;
    logging::update(&call.shared, changes);
    Ok(read(call))
}

fn change(name: &str, value: &Value) -> Result<Change, HttpError> {
    let wrong = |expected: &str| HttpError::bad_request(format!("Invalid value for '{name}': expected {expected}"));
    match (name, value) {
        ("log_file", _) => Err(logging::file_refusal().into()),
        ("log_verbose_level", value) => {
            let level = value.as_u64().and_then(|level| u32::try_from(level).ok());
            level.map(Change::Verbose).ok_or_else(|| wrong("an unsigned integer"))
        }
        ("log_format", Value::String(format)) => {
            Change::format(format).map_err(|error| HttpError::of(Code::Unavailable, error.to_string()))
        }
        ("log_format", _) => Err(wrong("a string")),
        (name, value) if Change::switch(name, true).is_some() => {
            value.as_bool().and_then(|on| Change::switch(name, on)).ok_or_else(|| wrong("a boolean"))
        }
        _ => Err(HttpError::bad_request(format!("unknown log setting '{name}'"))),
    }
}
