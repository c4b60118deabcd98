//! Naiad's own routes, scope `admin`: the access snapshot, inspection, the table of routes.

use std::sync::Arc;

use hyper::Response;
use serde_json::{Value, json};

use super::body::Chunks;
use super::limits::{self, BodyLimits};
use super::repository;
use super::routes::ROUTES;
use super::{Answer, Inbound, json as ok};
use crate::auth::Snapshot;
use crate::error::InferError;
use crate::server::Shared;
use crate::server::commands::Request;

/// `PUT /naiad/v1/access`: a full snapshot; answers what is in force now.
pub(super) async fn access(shared: &Arc<Shared>, inbound: Inbound) -> Answer {
    let limit = shared.options.max_input_size;
    let body = limits::read(inbound.body, BodyLimits { json: limit, whole: limit }).await?;
    let snapshot: Snapshot = serde_json::from_slice(&body)
        .map_err(|error| InferError::InvalidArgument(format!("access snapshot: {error}")))?;
    let generation = shared.gate.set(snapshot).map_err(InferError::InvalidArgument)?;
    Ok(ok(json!({"boot_id": shared.boot_id, "generation": generation}).to_string()))
}

/// `POST /naiad/v1/inspect`: what a model file says, by Python.
pub(super) async fn inspect(shared: &Arc<Shared>, inbound: Inbound) -> Answer {
    let parameters = repository::read_object(shared, inbound).await?;
    repository::ask(shared, Request::Inspect { parameters: Value::Object(parameters) }).await
}

/// `GET /naiad/v1/routes`: the live table, for the route × key test (A1).
pub(super) fn routes() -> Response<Chunks> {
    ok(json!(ROUTES).to_string())
}
