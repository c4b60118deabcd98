//! What the server and its models are: metadata and configuration (W62, W63).

use hyper::Response;

use super::body::ResponseBody;
use super::error::{json, json_text};
use super::{Answer, Call};
use crate::operations::metadata;

/// `GET /v2`
pub fn server(call: &Call) -> Response<ResponseBody> {
    json(&metadata::server(&call.shared))
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub fn model(call: &Call) -> Answer {
    Ok(json(&metadata::model(&call.shared, call.named())?))
}

/// `GET /v2/models/{model}[/versions/{version}]/config`
pub fn config(call: &Call) -> Answer {
    Ok(json_text(metadata::config(&call.shared, call.named())?.into()))
}
