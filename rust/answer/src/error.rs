//! The exceptions of asyncio, and which ones nobody may swallow.

use pyo3::import_exception;
use pyo3::prelude::*;

import_exception!(asyncio, CancelledError);
import_exception!(asyncio, InvalidStateError);

/// Puts `cause` behind `error`, as `raise error from cause` does.
#[must_use]
pub fn from_cause(py: Python<'_>, error: PyErr, cause: PyErr) -> PyErr {
    error.set_cause(py, Some(cause));
    error
}

/// What asyncio raises for a cancelled future.
#[must_use]
pub fn cancelled(py: Python<'_>, message: Option<Py<PyAny>>) -> PyErr {
    match message.filter(|message| !message.is_none(py)) {
        Some(message) => CancelledError::new_err((message,)),
        None => CancelledError::new_err(()),
    }
}

/// Whether this is asyncio's `CancelledError`.
#[must_use]
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<CancelledError>(py)
}

/// What asyncio raises for a future that is not done.
#[must_use]
pub fn invalid_state() -> PyErr {
    InvalidStateError::new_err("the answer is not there yet")
}

/// Whether it has to go on up the stack whatever happens: `KeyboardInterrupt`, `SystemExit`.
#[must_use]
pub fn ends_the_process(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py)
        || error.is_instance_of::<pyo3::exceptions::PySystemExit>(py)
}
