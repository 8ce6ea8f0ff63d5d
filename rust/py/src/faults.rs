//! The troubles that a test asks of its stores.

use ego_core::scripted::{Fault, Operation, Rule, Script};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::io;
use std::sync::Arc;

/// What the test kit's faults are made of: rules, each with its number.
#[pyclass(frozen, module = "ego._native")]
pub(crate) struct Faults(pub(crate) Arc<Script>);

type Entity = Option<(String, String)>;

impl Faults {
    fn add(&self, operation: Operation, fault: Fault, entity: Entity, times: Option<u64>) -> usize {
        self.0.add(Rule { operation, fault, entity, times })
    }
}

#[pymethods]
impl Faults {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    /// Has an operation fail with an error of the operating system.
    #[pyo3(signature = (operation, errno, entity, times))]
    fn fail(&self, operation: &str, errno: i32, entity: Entity, times: Option<u64>) -> PyResult<usize> {
        let operation = match operation {
            "append" => Operation::Append,
            "read" => Operation::Read,
            _ => return Err(PyValueError::new_err(format!("no such operation: {operation:?}"))),
        };
        Ok(self.add(operation, Fault::Fail(Arc::new(io::Error::from_raw_os_error(errno))), entity, times))
    }

    /// Has appends refused, as on a full disk.
    #[pyo3(signature = (entity, times))]
    fn refuse(&self, entity: Entity, times: Option<u64>) -> usize {
        self.add(Operation::Append, Fault::Refuse, entity, times)
    }

    /// Has appends stored, and nobody told.
    #[pyo3(signature = (entity, times))]
    fn lose_answer(&self, entity: Entity, times: Option<u64>) -> usize {
        self.add(Operation::Append, Fault::LoseAnswer, entity, times)
    }

    /// Has appends wait for a release; `reached` is called when one does. It must own nothing that owns this object.
    #[pyo3(signature = (reached, entity, times))]
    fn hold(&self, reached: Py<PyAny>, entity: Entity, times: Option<u64>) -> usize {
        let signal = move || Python::attach(|py| reached.call0(py).map_or_else(|failure| failure.print(py), drop));
        self.add(Operation::Append, Fault::Hold(Arc::new(signal)), entity, times)
    }

    /// Ends a rule, and settles what it held.
    fn release(&self, number: usize) {
        self.0.release(number);
    }

    /// The rules that were not used as often as they say.
    fn unused(&self) -> Vec<usize> {
        self.0.unused()
    }
}
