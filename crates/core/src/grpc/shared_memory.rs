//! The regions that clients register, over gRPC (W73 to W75).

use super::messages::inference::system_shared_memory_status_response::RegionStatus;
use super::messages::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryUnregisterResponse, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};
use super::{Answer, Call, reply};
use crate::operations::shared_memory::{self, Row};
use crate::shared_memory::Registration;

/// `SystemSharedMemoryStatus`
pub async fn status(call: &mut Call) -> Answer {
    call.caller()?;
    let message: SystemSharedMemoryStatusRequest = call.read().await?;
    let rows = shared_memory::status(call.shared(), named(&message.name))?;
    let regions = rows
        .into_iter()
        .map(|Row { name, key, offset, byte_size }| (name.clone(), RegionStatus { name, key, offset, byte_size }));
    Ok(reply(&SystemSharedMemoryStatusResponse { regions: regions.collect() }))
}

/// `SystemSharedMemoryRegister`
pub async fn register(call: &mut Call) -> Answer {
    call.caller()?;
    shared_memory::check_allowed(call.shared())?;
    let message: SystemSharedMemoryRegisterRequest = call.read().await?;
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = &message;
    let wanted = Registration { name, key, offset: *offset, byte_size: *byte_size };
    shared_memory::register(call.shared(), wanted)?;
    Ok(reply(&SystemSharedMemoryRegisterResponse {}))
}

/// `SystemSharedMemoryUnregister`
pub async fn unregister(call: &mut Call) -> Answer {
    call.caller()?;
    let message: SystemSharedMemoryUnregisterRequest = call.read().await?;
    shared_memory::unregister(call.shared(), named(&message.name))?;
    Ok(reply(&SystemSharedMemoryUnregisterResponse {}))
}

/// `CudaSharedMemoryRegister`
pub async fn register_cuda(call: &mut Call) -> Answer {
    call.caller()?;
    let message: CudaSharedMemoryRegisterRequest = call.read().await?;
    Err(shared_memory::register_cuda(call.shared(), &message.name).into())
}

/// `CudaSharedMemoryUnregister`
pub fn unregister_cuda(call: &Call) -> Answer {
    call.caller()?;
    shared_memory::unregister_cuda(call.shared())?;
    Ok(reply(&CudaSharedMemoryUnregisterResponse {}))
}

/// No name means all.
fn named(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}
