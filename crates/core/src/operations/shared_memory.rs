//! The regions that clients register: their list, a new one, one or all of them less (W73 to W75, W78). CUDA's are none.

use serde::Serialize;

use crate::error::InferError;
use crate::server::Shared;
use crate::shared_memory::Registration;

/// One region.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
}

/// The region of that name, or all; answers where regions are off, too.
pub(crate) fn status(shared: &Shared, name: Option<&str>) -> Result<Vec<Row>, InferError> {
    let regions = shared.regions.all();
    if let Some(name) = name.filter(|name| !regions.contains_key(*name)) {
        return Err(InferError::NotFound(format!("Unable to find system shared memory region: '{name}'")));
    }
    let wanted = regions.iter().filter(|(other, _)| name.is_none_or(|name| name == *other));
    Ok(wanted
        .map(|(name, region)| Row {
            name: name.clone(),
            key: region.key.clone(),
            offset: region.offset,
            byte_size: region.byte_size,
        })
        .collect())
}

/// Whether regions can be registered at all; asked before a request's body is read.
pub(crate) fn check_allowed(shared: &Shared) -> Result<(), InferError> {
    shared.regions.check_allowed()
}

/// Opens a region for requests.
pub(crate) fn register(shared: &Shared, wanted: Registration<'_>) -> Result<(), InferError> {
    shared.regions.register(wanted)
}

/// Forgets the region of that name, or all; one that is unknown is forgotten already.
pub(crate) fn unregister(shared: &Shared, name: Option<&str>) -> Result<(), InferError> {
    shared.regions.check_allowed()?;
    shared.regions.unregister(name);
    Ok(())
}

/// Refused as by a Triton without GPUs.
pub(crate) fn register_cuda(shared: &Shared, name: &str) -> InferError {
    let text = format!("failed to register CUDA shared memory region: '{name}', GPUs not supported");
    shared.regions.check_allowed().err().unwrap_or(InferError::InvalidArgument(text))
}

/// Load tools forget the regions of both kinds.
pub(crate) fn unregister_cuda(shared: &Shared) -> Result<(), InferError> {
    shared.regions.check_allowed()
}
