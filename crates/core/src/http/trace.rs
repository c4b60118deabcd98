//! The trace settings over HTTP (W79).

use serde_json::Value;

use super::error::{HttpError, json};
use super::repository::object;
use super::{Answer, Call};
use crate::error::Code;
use crate::operations::Named;
use crate::operations::trace::{self, Change};

/// `GET /v2[/models/{model}]/trace/setting`
pub fn read(call: &Call) -> Answer {
    Ok(json(&trace::read(&call.shared, model(call))?))
}

/// `POST /v2[/models/{model}]/trace/setting`: all of the changes or none.
pub async fn update(call: &mut Call) -> Answer {
    let body = call.read().await?;
    if body.is_empty() {
        return Err(HttpError::bad_request("trace settings: expected a JSON object, got an empty body"));
    }
    let body = object(&body)?;
    let changes: Vec<_> = body.iter().map(|(name, value)| change(name, value)).collect::<Result<_, _>>()?;
    Ok(json(&trace::update(&call.shared, model(call), &changes)?))
}

fn model(call: &Call) -> Option<Named<'_>> {
    call.entry.model.as_ref().map(|name| Named { name, version: None })
}

/// `null` clears; a number where a text belongs is Triton's own failure, 500.
fn change(name: &str, value: &Value) -> Result<Change, HttpError> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(HttpError::of(Code::Internal, "attempt to access JSON non-string as string")),
    };
    let values = match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().map(text).collect::<Result<_, _>>()?,
        value => vec![text(value)?],
    };
    Ok(Change::read(name, &values)?)
}
