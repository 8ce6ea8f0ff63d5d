//! What nobody waits for goes to the stdlib logger `ego`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Logs an exception that no caller can be given.
pub fn exception(py: Python<'_>, message: &str, failure: PyErr) {
    let logged = (|| {
        let named = PyDict::new(py);
        named.set_item("exc_info", failure.into_value(py))?;
        let logger = py.import("logging")?.call_method1("getLogger", ("ego",))?;
        logger.call_method("error", (message,), Some(&named)).map(drop)
    })();
    if let Err(failure) = logged {
        failure.write_unraisable(py, None);
    }
}
