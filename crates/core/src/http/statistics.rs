//! What happened to requests so far (W64): of one model or of all that the caller sees.

use serde::Serialize;

use super::error::{HttpError, json};
use super::{Answer, Call};
use crate::statistics::ModelStatistics;

#[derive(Serialize)]
struct Body {
    model_stats: Vec<ModelStatistics>,
}

/// `GET /v2/models/stats`, `GET /v2/models/{model}[/versions/{version}]/stats`
pub fn statistics(call: &Call) -> Answer {
    let model_stats = if call.entry.model.is_some() { of_one(call)? } else { of_all(call)? };
    Ok(json(&Body { model_stats }))
}

fn of_one(call: &Call) -> Result<Vec<ModelStatistics>, HttpError> {
    let mut rows = Vec::new();
    for target in call.targets() {
        let found = call.shared.engine.statistics(Some(&target), call.entry.version);
        let found = found.map_err(|error| call.refuse(error, &target))?;
        rows.extend(found.into_iter().map(|row| ModelStatistics { name: call.model().to_string(), ..row }));
    }
    Ok(rows)
}

/// Who manages sees models by their own names, others their services by public ones.
fn of_all(call: &Call) -> Result<Vec<ModelStatistics>, HttpError> {
    let mut rows = call.shared.engine.statistics(None, None)?;
    if !call.entry.caller.manages() {
        let access = call.shared.gate.access();
        for row in &mut rows {
            if let Some(public) = access.public_names().get(&row.name) {
                row.name.clone_from(public);
            }
        }
        rows.retain(|row| call.entry.caller.sees(&row.name));
    }
    Ok(rows)
}
