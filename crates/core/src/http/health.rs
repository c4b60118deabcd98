//! Whether the server and its models can be asked (W9, W10).

use bytes::Bytes;
use hyper::Response;
use serde::Serialize;

use super::body::ResponseBody;
use super::error::{HttpError, json, json_text};
use super::{Answer, Call};
use crate::error::InferError;

/// `GET /v2/health/live`
pub fn live(call: &Call) -> Answer {
    if call.shared.is_exiting() {
        return Err(InferError::Exiting.into());
    }
    Ok(json_text(Bytes::from_static(br#"{"live":true}"#)))
}

/// `GET /v2/health/ready`
pub fn ready(call: &Call) -> Answer {
    if call.shared.is_exiting() {
        return Err(InferError::Exiting.into());
    }
    if call.shared.is_ready() { Ok(json_text(Bytes::from_static(br#"{"ready":true}"#))) } else { Ok(not_ready()) }
}

fn not_ready() -> Response<ResponseBody> {
    let mut response = HttpError::bad_request("").response();
    *response.body_mut() = ResponseBody::from(Bytes::from_static(br#"{"ready":false}"#));
    response
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`; a service is ready when every model behind it is.
pub fn model_ready(call: &Call) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        ready: bool,
    }
    let registry = call.shared.engine.registry();
    for target in call.targets() {
        let ready = registry.ready(&target, call.entry.version).map_err(|error| call.refuse(error, &target))?;
        if !ready {
            return Err(HttpError::not_ready("Model version not ready"));
        }
    }
    Ok(json(&Body { name: call.model(), ready: true }))
}
