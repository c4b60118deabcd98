//! Liveness and readiness of the server and of a model (W9, W10).

use hyper::{Response, StatusCode};

use super::body::Chunks;
use super::error::{HttpError, RoutedStatus};
use super::{Answer, Call, json};
use crate::error::InferError;
use crate::server::Shared;

/// Alive as long as it answers; 503 once it is going down.
pub(super) fn live(shared: &Shared) -> Response<Chunks> {
    state(shared, "live", true)
}

/// Ready as Python last said.
pub(super) fn ready(shared: &Shared) -> Response<Chunks> {
    state(shared, "ready", shared.is_ready())
}

fn state(shared: &Shared, name: &str, value: bool) -> Response<Chunks> {
    if shared.is_draining() {
        return HttpError::Failed(InferError::Exiting).into_response(None);
    }
    let mut response = json(format!("{{\"{name}\":{value}}}"));
    if !value {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

/// 200 if the version can answer; W10 says the rest.
pub(super) fn model_ready(shared: &Shared, call: &Call) -> Answer {
    let names = call.model();
    match shared.engine.registry().ready(&names.model, call.version) {
        Ok(true) => Ok(json(format!("{{\"name\":{},\"ready\":true}}", serde_json::json!(names.public.as_ref())))),
        Ok(false) => Err(HttpError::Routed(RoutedStatus::BadRequest, "Model version not ready".to_owned())),
        Err(error) => Err(error.into()),
    }
}
