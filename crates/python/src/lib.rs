//! The doors between Python and the core: a table of contents, no logic.

mod core;
mod error;

use pyo3::prelude::*;

/// What one I/O thread allocates another frees, which glibc is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<core::Core>()?;
    module.add("CoreError", module.py().get_type::<error::CoreError>())?;
    module.add_function(wrap_pyfunction!(version, module)?)?;
    Ok(())
}

/// The version of the data plane.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
