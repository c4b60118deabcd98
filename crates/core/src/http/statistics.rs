//! What happened to requests so far (W64): of one model or of all that the caller sees.

use serde::Serialize;

use super::error::json;
use super::{Answer, Call};
use crate::operations::statistics;
use crate::statistics::ModelStatistics;

#[derive(Serialize)]
struct Body {
    model_stats: Vec<ModelStatistics>,
}

/// `GET /v2/models/stats`, `GET /v2/models/{model}[/versions/{version}]/stats`
pub fn statistics(call: &Call) -> Answer {
    let model_stats = match call.entry.model {
        Some(_) => statistics::of_one(&call.shared, call.named())?,
        None => statistics::of_all(&call.shared, &call.entry.caller)?,
    };
    Ok(json(&Body { model_stats }))
}
