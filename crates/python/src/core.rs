//! `Core`: one server's data plane as Python holds it. Whatever waits lets go of the GIL first.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::process;
use std::time::Duration;

use naiad_core::InferError;
use naiad_core::options::CoreOptions;
use naiad_core::server::Server;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::error::raise;

/// One inference server's data plane; its threads never take the GIL.
#[pyclass(frozen, module = "naiad._core")]
pub struct Core {
    server: Server,
    /// A fork copies the handle without the threads, so only this process may use it.
    pid: u32,
}

impl Core {
    /// Does something without the GIL, in the process that made the core.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        action: impl FnOnce(&Server) -> Result<T, InferError> + Send,
    ) -> PyResult<T> {
        let pid = process::id();
        if pid != self.pid {
            let text = format!("this Core belongs to process {}, and process {pid} is a fork of it", self.pid);
            return Err(PyRuntimeError::new_err(text));
        }
        py.detach(|| action(&self.server)).map_err(|error| raise(py, &error))
    }
}

#[pymethods]
impl Core {
    #[new]
    fn new(py: Python<'_>, options: &[u8]) -> PyResult<Self> {
        let server = py.detach(|| CoreOptions::from_json(options).and_then(Server::new));
        Ok(Self { server: server.map_err(|error| raise(py, &error))?, pid: process::id() })
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        self.call(py, |server| {
            let addresses = server.start()?;
            serde_json::to_vec(&addresses).map_err(|fault| InferError::Internal(fault.to_string()))
        })
    }

    fn next_command(&self, py: Python<'_>, timeout_millis: u64) -> PyResult<Option<Vec<u8>>> {
        self.call(py, |server| server.commands().next(Duration::from_millis(timeout_millis)))
    }

    fn complete(&self, py: Python<'_>, command_id: u64, result: &[u8]) -> PyResult<()> {
        self.call(py, |server| server.commands().complete(command_id, result))
    }

    fn open_worker(&self, py: Python<'_>, spec: &[u8]) -> PyResult<(u64, RawFd)> {
        let (worker, end) = self.call(py, |server| server.open_worker(spec))?;
        Ok((worker, end.into_raw_fd()))
    }

    fn close_worker(&self, py: Python<'_>, worker: u64) -> PyResult<()> {
        self.call(py, |server| {
            server.close_worker(worker);
            Ok(())
        })
    }

    fn attach_worker(&self, py: Python<'_>, model: &str, version: u64, worker: u64) -> PyResult<()> {
        self.call(py, |server| server.attach_worker(model, version, worker))
    }

    fn follow_worker(&self, py: Python<'_>, worker: u64, control: RawFd) -> PyResult<()> {
        let control = own(control)?;
        self.call(py, |server| {
            server.follow_worker(worker, control);
            Ok(())
        })
    }

    fn publish(&self, py: Python<'_>, spec: &[u8]) -> PyResult<()> {
        self.call(py, |server| server.publish(spec))
    }

    fn reconfigure(&self, py: Python<'_>, model: &str, version: u64, config: String) -> PyResult<bool> {
        self.call(py, |server| Ok(server.reconfigure(model, version, config)))
    }

    fn withdraw(&self, py: Python<'_>, model: &str, version: u64) -> PyResult<bool> {
        self.call(py, |server| Ok(server.withdraw(model, version)))
    }

    fn retire_replaced(&self, py: Python<'_>, model: &str, drain_millis: u64) -> PyResult<bool> {
        self.call(py, |server| Ok(server.retire_replaced(model, Duration::from_millis(drain_millis))))
    }

    fn set_index(&self, py: Python<'_>, rows: &[u8]) -> PyResult<()> {
        self.call(py, |server| server.set_index(rows))
    }

    fn set_access(&self, py: Python<'_>, snapshot: &[u8]) -> PyResult<Vec<u8>> {
        self.call(py, |server| server.set_access(snapshot))
    }

    fn set_ready(&self, py: Python<'_>, ready: bool) -> PyResult<()> {
        self.call(py, |server| {
            server.set_ready(ready);
            Ok(())
        })
    }

    fn pump_output(&self, py: Python<'_>, descriptor: RawFd, labels: &[u8]) -> PyResult<()> {
        let pipe = own(descriptor)?;
        self.call(py, |server| server.pump_output(pipe, labels))
    }

    fn log(&self, py: Python<'_>, record: &[u8]) -> PyResult<()> {
        self.call(py, |server| server.write_log(record))
    }

    fn drain(&self, py: Python<'_>, deadline_millis: u64) -> PyResult<bool> {
        self.call(py, |server| Ok(server.drain(Duration::from_millis(deadline_millis))))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |server| {
            server.stop();
            Ok(())
        })
    }
}

/// Takes over a descriptor that Python hands in and no longer uses.
fn own(descriptor: RawFd) -> PyResult<OwnedFd> {
    if descriptor < 0 {
        return Err(PyValueError::new_err(format!("expected a descriptor, got {descriptor}")));
    }
    #[expect(unsafe_code, reason = "a raw descriptor is all that Python can hand over")]
    // SAFETY: it is not -1, and the methods that call this document that they take the descriptor over: Python never
    // uses or closes it again.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(descriptor)
}
