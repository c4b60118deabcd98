//! Whether the server and its models can be asked (W9 to W11).

use super::Named;
use crate::error::InferError;
use crate::server::Shared;

/// Whether the server lives; a failure once it goes down.
pub(crate) fn live(shared: &Shared) -> Result<bool, InferError> {
    if shared.is_exiting() { Err(InferError::Exiting) } else { Ok(true) }
}

/// Whether the server is ready; a failure once it goes down.
pub(crate) fn ready(shared: &Shared) -> Result<bool, InferError> {
    if shared.is_exiting() { Err(InferError::Exiting) } else { Ok(shared.is_ready()) }
}

/// Whether every model behind the name is ready; a failure where one is unknown or not loaded.
pub(crate) async fn model_ready(shared: &Shared, model: Named<'_>) -> Result<bool, InferError> {
    let registry = shared.engine.registry();
    for target in model.targets(shared) {
        let ready = registry.ready(&target, model.version).await.map_err(|error| model.refuse(error, &target))?;
        if !ready {
            return Ok(false);
        }
    }
    Ok(true)
}
