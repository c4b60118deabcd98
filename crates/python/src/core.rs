//! `Core`: one server's data plane as Python holds it. Whatever waits lets go of the GIL first.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use naiad_core::InferError;
use naiad_core::error::Code;
use naiad_core::options::CoreOptions;
use naiad_core::server::commands::Next;
use naiad_core::server::{Server, StartError};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

create_exception!(_core, CoreError, PyException, "A refusal of the core: `args` is `(code, message)`.");

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Unknown => "unknown",
        Code::Internal => "internal",
        Code::NotFound => "not_found",
        Code::InvalidArg => "invalid_arg",
        Code::Unavailable => "unavailable",
        Code::Unsupported => "unsupported",
        Code::AlreadyExists => "already_exists",
        Code::Cancelled => "cancelled",
    }
}

fn refuse(code: Code, message: impl Into<String>) -> PyErr {
    CoreError::new_err((code_name(code), message.into()))
}

fn refused(error: &InferError) -> PyErr {
    refuse(error.code(), error.to_string())
}

fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> PyResult<T> {
    serde_json::from_slice(text).map_err(|error| refuse(Code::InvalidArg, format!("{what}: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerPlace {
    model: String,
    version: u64,
    instance: u32,
}

/// One inference server's data plane; its threads never take the GIL.
#[pyclass(frozen, module = "naiad._core")]
pub struct Core {
    options: CoreOptions,
    server: OnceLock<Server>,
    /// A fork copies the handle without the threads, so only this process may use it.
    pid: u32,
}

impl Core {
    fn server(&self) -> PyResult<&Server> {
        let pid = std::process::id();
        if pid != self.pid {
            let text = format!("this Core belongs to process {}, not to its fork {pid}", self.pid);
            return Err(PyRuntimeError::new_err(text));
        }
        self.server.get().ok_or_else(|| refuse(Code::Unavailable, "the core is not started"))
    }
}

#[pymethods]
impl Core {
    #[new]
    fn new(options: &[u8]) -> PyResult<Self> {
        let options = parse("options", options)?;
        Ok(Self { options, server: OnceLock::new(), pid: std::process::id() })
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        if self.server.get().is_some() {
            return Err(refuse(Code::AlreadyExists, "the core is already started"));
        }
        let server = py
            .detach(|| Server::start(self.options.clone()))
            .map_err(|StartError(code, message)| refuse(code, message))?;
        let addresses = serde_json::to_vec(server.addresses()).expect("addresses are plain strings");
        self.server.set(server).map_err(|_| refuse(Code::AlreadyExists, "the core is already started"))?;
        Ok(addresses)
    }

    fn next_command(&self, py: Python<'_>, timeout_millis: u64) -> PyResult<Option<Vec<u8>>> {
        let server = self.server()?;
        match py.detach(|| server.next_command(Duration::from_millis(timeout_millis))) {
            Next::Command(command) => Ok(Some(command)),
            Next::Nothing => Ok(None),
            Next::Stopped => Err(refuse(Code::Cancelled, "the core is stopped")),
        }
    }

    fn complete(&self, command_id: u64, result: &[u8]) -> PyResult<()> {
        // A client that went away no longer waits: that is no error.
        self.server()?.complete(command_id, parse("result", result)?);
        Ok(())
    }

    fn open_worker(&self, spec: &[u8]) -> PyResult<(u64, RawFd)> {
        let place: WorkerPlace = parse("spec", spec)?;
        let opened = self.server()?.open_worker(&place.model, place.version, place.instance);
        let (worker, descriptor) =
            opened.map_err(|error| refuse(Code::Unavailable, format!("cannot open a worker's channel: {error}")))?;
        Ok((worker, descriptor.into_raw_fd()))
    }

    fn close_worker(&self, py: Python<'_>, worker: u64) -> PyResult<()> {
        let server = self.server()?;
        py.detach(|| server.close_worker(worker));
        Ok(())
    }

    fn attach_worker(&self, py: Python<'_>, model: &str, version: u64, worker: u64) -> PyResult<()> {
        let server = self.server()?;
        py.detach(|| server.attach_worker(model, version, worker)).map_err(|error| refused(&error))
    }

    fn publish(&self, py: Python<'_>, spec: &[u8]) -> PyResult<()> {
        let spec = parse("spec", spec)?;
        let server = self.server()?;
        py.detach(|| server.publish(spec)).map_err(|error| refused(&error))
    }

    fn retire(&self, py: Python<'_>, model: &str, version: u64, drain_millis: u64) -> PyResult<bool> {
        let server = self.server()?;
        Ok(py.detach(|| server.retire(model, version, Duration::from_millis(drain_millis))))
    }

    fn retire_replaced(&self, py: Python<'_>, model: &str, drain_millis: u64) -> PyResult<bool> {
        let server = self.server()?;
        Ok(py.detach(|| server.retire_replaced(model, Duration::from_millis(drain_millis))))
    }

    fn set_index(&self, rows: &[u8]) -> PyResult<()> {
        self.server()?.set_index(parse("rows", rows)?);
        Ok(())
    }

    fn set_access(&self, snapshot: &[u8]) -> PyResult<Vec<u8>> {
        let server = self.server()?;
        let generation =
            server.set_access(parse("snapshot", snapshot)?).map_err(|text| refuse(Code::InvalidArg, text))?;
        let answer = serde_json::json!({"boot_id": server.addresses().boot_id, "generation": generation});
        Ok(answer.to_string().into_bytes())
    }

    fn set_ready(&self, ready: bool) -> PyResult<()> {
        self.server()?.set_ready(ready);
        Ok(())
    }

    fn pump_output(&self, descriptor: RawFd, labels: &[u8]) -> PyResult<()> {
        let server = self.server()?;
        let labels = parse("labels", labels)?;
        let owned = own(descriptor);
        server
            .pump_output(owned, labels)
            .map_err(|error| refuse(Code::InvalidArg, format!("descriptor {descriptor}: {error}")))
    }

    fn log(&self, record: &[u8]) -> PyResult<()> {
        self.server()?.logger().write_json(record).map_err(|text| refuse(Code::InvalidArg, text))
    }

    fn drain(&self, py: Python<'_>, deadline_millis: u64) -> PyResult<bool> {
        let server = self.server()?;
        Ok(py.detach(|| server.drain(Duration::from_millis(deadline_millis))))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let server = self.server()?;
        py.detach(|| server.stop());
        Ok(())
    }
}

/// Takes over a descriptor that Python hands in and no longer uses.
fn own(descriptor: RawFd) -> OwnedFd {
    #[expect(unsafe_code, reason = "a raw descriptor is all that Python can hand over")]
    // SAFETY: `pump_output` documents that it takes the descriptor over; Python does not use it again.
    unsafe {
        OwnedFd::from_raw_fd(descriptor)
    }
}
