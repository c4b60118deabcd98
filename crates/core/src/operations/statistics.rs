//! What happened to requests so far (W64): of one model or of all that the caller sees.

use super::Named;
use crate::auth::Caller;
use crate::error::InferError;
use crate::server::Shared;
use crate::statistics::ModelStatistics;

/// The statistics of the models behind one name.
pub(crate) fn of_one(shared: &Shared, model: Named<'_>) -> Result<Vec<ModelStatistics>, InferError> {
    let mut rows = Vec::new();
    for target in model.targets(shared) {
        let found = shared.engine.statistics(Some(&target), model.version);
        let found = found.map_err(|error| model.refuse(error, &target))?;
        rows.extend(found.into_iter().map(|row| ModelStatistics { name: model.name.to_string(), ..row }));
    }
    Ok(rows)
}

/// Who manages sees models by their own names, others their services by public ones.
pub(crate) fn of_all(shared: &Shared, caller: &Caller) -> Result<Vec<ModelStatistics>, InferError> {
    let mut rows = shared.engine.statistics(None, None)?;
    if !caller.manages() {
        let access = shared.gate.access();
        for row in &mut rows {
            if let Some(public) = access.public_names().get(&row.name) {
                row.name.clone_from(public);
            }
        }
        rows.retain(|row| caller.sees(&row.name));
    }
    Ok(rows)
}
