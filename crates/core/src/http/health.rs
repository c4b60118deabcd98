//! Whether the server and its models can be asked (W9, W10).

use bytes::Bytes;
use hyper::Response;
use serde::Serialize;

use super::body::ResponseBody;
use super::error::{HttpError, json, json_text};
use super::{Answer, Call};
use crate::operations::health;

/// `GET /v2/health/live`
pub fn live(call: &Call) -> Answer {
    health::live(&call.shared)?;
    Ok(json_text(Bytes::from_static(br#"{"live":true}"#)))
}

/// `GET /v2/health/ready`
pub fn ready(call: &Call) -> Answer {
    let ready = health::ready(&call.shared)?;
    if ready { Ok(json_text(Bytes::from_static(br#"{"ready":true}"#))) } else { Ok(not_ready()) }
}

fn not_ready() -> Response<ResponseBody> {
    let mut response = HttpError::bad_request("").response();
    *response.body_mut() = ResponseBody::from(Bytes::from_static(br#"{"ready":false}"#));
    response
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`; a service is ready when every model behind it is.
pub async fn model_ready(call: &Call) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        ready: bool,
    }
    if !health::model_ready(&call.shared, call.named()).await? {
        return Err(HttpError::not_ready("Model version not ready"));
    }
    Ok(json(&Body { name: call.model(), ready: true }))
}
