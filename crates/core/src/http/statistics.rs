//! Statistics of one model or of all that the caller may see (W64, W65).

use serde_json::json;

use super::{Answer, Call, json as ok};
use crate::server::Shared;
use crate::statistics::ModelStatistics;

/// `GET /v2/models/{model}/stats`.
pub(super) fn model(shared: &Shared, call: &Call) -> Answer {
    let names = call.model();
    let mut rows = shared.engine.statistics(Some(&names.model), call.version)?;
    for row in &mut rows {
        row.name = names.public.to_string();
    }
    Ok(ok(json!({"model_stats": rows}).to_string()))
}

/// `GET /v2/models/stats`: a key sees its own services only.
pub(super) fn all(shared: &Shared, call: &Call) -> Answer {
    let rows: Vec<ModelStatistics> = shared
        .engine
        .statistics(None, None)?
        .into_iter()
        .filter_map(|mut row| {
            let public = shared.gate.public_name(&row.name);
            let seen = call.caller.sees(public.as_deref().unwrap_or(&row.name));
            if let Some(public) = public.filter(|_| !call.caller.manages()) {
                row.name = public.to_string();
            }
            seen.then_some(row)
        })
        .collect();
    Ok(ok(json!({"model_stats": rows}).to_string()))
}
