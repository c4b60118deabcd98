//! The regions that clients register, over HTTP (W73 to W75).

use serde_json::{Map, Value};

use super::error::{HttpError, empty, json};
use super::repository::object;
use super::{Answer, Call};
use crate::operations::shared_memory;
use crate::shared_memory::Registration;

/// `GET /v2/systemsharedmemory[/region/{region}]/status`
pub fn status(call: &Call) -> Answer {
    Ok(json(&shared_memory::status(&call.shared, call.entry.region.as_deref())?))
}

/// `POST /v2/systemsharedmemory/region/{region}/register`
pub async fn register(call: &mut Call) -> Answer {
    shared_memory::check_allowed(&call.shared)?;
    let body = call.read().await?;
    if body.is_empty() {
        return Err(HttpError::bad_request("failed to parse the request JSON buffer: The document is empty. at 0"));
    }
    let body = object(&body)?;
    let name = call.entry.region.as_deref().unwrap_or_default();
    shared_memory::register(&call.shared, registration(name, &body)?)?;
    Ok(empty())
}

/// `POST /v2/systemsharedmemory[/region/{region}]/unregister`
pub fn unregister(call: &Call) -> Answer {
    shared_memory::unregister(&call.shared, call.entry.region.as_deref())?;
    Ok(empty())
}

/// `POST /v2/cudasharedmemory/region/{region}/register`
pub fn register_cuda(call: &Call) -> Answer {
    Err(shared_memory::register_cuda(&call.shared, call.entry.region.as_deref().unwrap_or_default()).into())
}

/// `POST /v2/cudasharedmemory[/region/{region}]/unregister`
pub fn unregister_cuda(call: &Call) -> Answer {
    shared_memory::unregister_cuda(&call.shared)?;
    Ok(empty())
}

fn registration<'a>(name: &'a str, body: &'a Map<String, Value>) -> Result<Registration<'a>, HttpError> {
    let missing =
        |member: &str| HttpError::bad_request(format!("Shared memory register request has no '{member}' field"));
    let number = |member: &str, value: &Value| {
        value.as_u64().ok_or_else(|| {
            HttpError::bad_request(format!(
                "Unable to parse '{member}': attempt to access JSON non-unsigned-integer as unsigned-integer"
            ))
        })
    };
    let Value::String(key) = body.get("key").ok_or_else(|| missing("key"))? else {
        return Err(HttpError::bad_request("Unable to parse 'key': attempt to access JSON non-string as string"));
    };
    let offset = body.get("offset").map_or(Ok(0), |value| number("offset", value))?;
    let byte_size = number("byte_size", body.get("byte_size").ok_or_else(|| missing("byte_size"))?)?;
    Ok(Registration { name, key, offset, byte_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(String, u64, u64), String> {
        let body = serde_json::from_str(body).unwrap();
        let read = registration("r", &body).map_err(|error| error.text().to_owned())?;
        Ok((read.key.to_owned(), read.offset, read.byte_size))
    }

    #[test]
    fn w74_a_registration_needs_a_key_and_a_size() {
        assert_eq!(read(r#"{"key":"/k","offset":4,"byte_size":8}"#), Ok(("/k".to_owned(), 4, 8)));
        assert_eq!(read(r#"{"key":"/k","byte_size":8}"#), Ok(("/k".to_owned(), 0, 8)));
        assert_eq!(read(r#"{"byte_size":8}"#).unwrap_err(), "Shared memory register request has no 'key' field");
        assert_eq!(read(r#"{"key":"/k"}"#).unwrap_err(), "Shared memory register request has no 'byte_size' field");
        for body in [r#"{"key":5,"byte_size":8}"#, r#"{"key":"k","byte_size":-1}"#, r#"{"key":"k","byte_size":1.5}"#] {
            assert!(read(body).unwrap_err().starts_with("Unable to parse"), "{body}");
        }
    }
}
