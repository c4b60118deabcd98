//! `CoreError`, the one exception that crosses.

use naiad_core::InferError;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    naiad._core,
    CoreError,
    PyException,
    "A refusal of the core: `args` is `(code, message)`, code one of Triton's eight in snake case."
);

/// A refusal as Python sees it, with `code` and `message`.
pub fn raise(py: Python<'_>, error: &InferError) -> PyErr {
    let (code, message) = (error.code().name(), error.to_string());
    let raised = CoreError::new_err((code, message.clone()));
    let value = raised.value(py);
    match value.setattr("code", code).and_then(|()| value.setattr("message", message)) {
        Ok(()) => raised,
        Err(fault) => fault,
    }
}
