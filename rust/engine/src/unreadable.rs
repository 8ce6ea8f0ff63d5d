//! What is raised where something stored cannot be read.

use crate::error;
use ego_core::journal::EntityKey;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

/// One stored event or state.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub entity: &'a EntityKey,
    pub is_state: bool,
    pub name: &'a str,
    pub version: u32,
    pub revision: u64,
}

impl Stored<'_> {
    fn what(&self) -> &'static str {
        if self.is_state { "state" } else { "event" }
    }

    /// Its kind, if there is one, declares no such type.
    pub fn unknown(&self, py: Python<'_>, is_registered: bool) -> PyErr {
        let (what, Self { name, version, revision, .. }) = (self.what(), *self);
        let why = if is_registered {
            format!("which no {what} type of this kind declares")
        } else {
            format!("and no kind {:?} is registered with this engine", self.entity.kind)
        };
        let message = format!("{what} {revision} is stored as {name:?} version {version}, {why}");
        let facts = (|| {
            Ok([
                ("name", name.into_bound_py_any(py)?),
                ("version", version.into_bound_py_any(py)?),
                ("revision", revision.into_bound_py_any(py)?),
            ])
        })();
        match facts {
            Ok(facts) => error::with(py, "UnknownEventError", self.entity, &message, &facts),
            Err(failure) => failure,
        }
    }

    /// Its decoder failed.
    pub fn undecoded(&self, py: Python<'_>, failure: PyErr) -> PyErr {
        if error::is_one_of_ours(py, &failure) {
            return error::at(py, failure, self.entity, self.revision);
        }
        let message = format!("stored {} {} cannot be decoded", self.what(), self.revision);
        ours(py, failure, |_| Ok(error::about(py, "CodecError", self.entity, &message)))
    }
}

/// An error of ours with the user's as its cause; what is no `Exception` stays what it is.
pub fn ours(py: Python<'_>, failure: PyErr, make: impl FnOnce(&PyErr) -> PyResult<PyErr>) -> PyErr {
    if !failure.is_instance_of::<PyException>(py) {
        return failure;
    }
    match make(&failure) {
        Ok(made) => ego_answer::error::from_cause(py, made, failure),
        Err(broken) => broken,
    }
}
