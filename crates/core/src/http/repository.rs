//! The repository index, load and unload; Python does the work (W66 to W72).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{HttpError, empty, json};
use super::{Answer, Call};
use crate::error::Code;
use crate::operations::repository::{self, Overrides};

/// `POST /v2/repository[/{repository}]/index`; the repository's name is ignored, as Triton does.
pub async fn index(call: &mut Call) -> Answer {
    let body = object(&call.read().await?)?;
    let only_ready = match body.get("ready") {
        None => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => return Err(HttpError::bad_request("Invalid value for 'ready': expected a boolean")),
    };
    Ok(json(&repository::index(&call.shared, &call.entry.caller, only_ready)))
}

/// `POST /v2/repository/models/{model}/load`
pub async fn load(call: &mut Call) -> Answer {
    repository::check_control(&call.shared, call.entry.in_repository)?;
    let mut body = object(&call.read().await?)?;
    let overrides = load_parameters(body.remove("parameters"))?;
    repository::load(&call.shared, &call.entry.caller, call.model(), overrides).await?;
    Ok(empty())
}

/// `POST /v2/repository/models/{model}/unload`
pub async fn unload(call: &mut Call) -> Answer {
    repository::check_control(&call.shared, call.entry.in_repository)?;
    let mut body = object(&call.read().await?)?;
    let unload_dependents = match body.remove("parameters").unwrap_or_default() {
        Value::Null => false,
        Value::Object(parameters) => match parameters.get("unload_dependents") {
            None => false,
            Some(Value::Bool(unload)) => *unload,
            Some(_) => return Err(wrong_type("attempt to access JSON non-boolean as boolean")),
        },
        _ => return Err(wrong_type("attempt to access JSON non-object as object")),
    };
    repository::unload(&call.shared, call.model(), unload_dependents).await?;
    Ok(empty())
}

/// `config` and `file:<path>` (W67, W68).
fn load_parameters(parameters: Option<Value>) -> Result<Overrides, HttpError> {
    let parameters = match parameters.unwrap_or_default() {
        Value::Null => Map::new(),
        Value::Object(parameters) => parameters,
        _ => return Err(wrong_type("attempt to access JSON non-object as object")),
    };
    let mut overrides = Overrides::default();
    for (name, value) in parameters {
        let path = name.strip_prefix("file:");
        if path.is_none() && name != "config" {
            return Err(HttpError::of(Code::Internal, format!("unrecognized load parameter '{name}'.")));
        }
        let Value::String(value) = value else {
            return Err(wrong_type("attempt to access JSON non-string as string"));
        };
        match path {
            Some(path) => drop(overrides.files.insert(path.to_owned(), value)),
            None => overrides.config = Some(value),
        }
    }
    Ok(overrides)
}

/// W67: Triton answers 500 to a wrong type here, and its tests look for it.
fn wrong_type(text: &str) -> HttpError {
    HttpError::of(Code::Internal, text)
}

/// A body that may be left out; an object if it is there.
pub fn object(body: &Bytes) -> Result<Map<String, Value>, HttpError> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Object(Map<String, Value>);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let object: Object = serde_json::from_slice(body).map_err(|fault| syntax_fault(body, &fault))?;
    Ok(object.0)
}

/// W13: what is wrong and at which byte.
pub fn syntax_fault(body: &[u8], fault: &serde_json::Error) -> HttpError {
    let message = if body.is_empty() { "The document is empty." } else { "Invalid value." };
    let lines_before = body.split_inclusive(|byte| *byte == b'\n').take(fault.line().saturating_sub(1));
    let before = lines_before.map(<[u8]>::len).sum::<usize>();
    let offset = if fault.is_eof() { body.len() } else { before + fault.column().saturating_sub(1) };
    HttpError::bad_request(format!("failed to parse the request JSON buffer: {message} at {offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(parameters: &str) -> String {
        load_parameters(Some(serde_json::from_str(parameters).unwrap())).unwrap_err().text().to_owned()
    }

    #[test]
    fn load_takes_a_configuration_and_files_only() {
        let Overrides { config, files } =
            load_parameters(Some(serde_json::json!({"config": "{}", "file:1/model.pt": "aGk="}))).unwrap();
        assert_eq!((config.as_deref(), files["1/model.pt"].as_str()), (Some("{}"), "aGk="));
        assert_eq!(refusal(r#"{"config":{}}"#), "attempt to access JSON non-string as string");
        assert_eq!(refusal(r#"{"x":""}"#), "unrecognized load parameter 'x'.");
    }

    #[test]
    fn a_syntax_fault_names_its_byte() {
        let body = Bytes::from_static(b"{\n\"ready\": x}");
        let text = object(&body).unwrap_err().text().to_owned();
        assert_eq!(text, "failed to parse the request JSON buffer: Invalid value. at 11");
        assert!(object(&Bytes::new()).unwrap().is_empty());
    }
}
