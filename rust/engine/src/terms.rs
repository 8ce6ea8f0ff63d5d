//! What a command may carry besides itself: an expected revision, an id under which it is remembered, metadata.
//!
//! Most commands carry nothing and cost nothing here. Commands that a handler sends inherit what the handler's own
//! command carries.

use crate::context;
use crate::error;
use crate::kind::Kind;
use ego_core::entities::commands;
use ego_core::journal::{EntityKey, MAX_METADATA_BYTES, MAX_NAME_BYTES};
use ego_core::metadata;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyMapping, PyString};
use std::sync::Arc;

/// Which revisions a command runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Exactly(u64),
    MustExist,
}

/// The id of a command, and what tells it from another one under that id.
#[derive(Debug)]
pub struct Identified {
    pub id: Arc<str>,
    pub fingerprint: [u8; 16],
}

#[derive(Debug, Default)]
pub struct Terms {
    pub expected: Option<Expected>,
    pub command: Option<Identified>,
    /// Encoded; empty for none.
    pub metadata: Vec<u8>,
}

/// The same as it was given; nothing of it is Python's `None`.
#[derive(Default)]
pub struct Given<'a, 'py> {
    pub expected_revision: Option<&'a Bound<'py, PyAny>>,
    pub command_id: Option<&'a Bound<'py, PyAny>>,
    pub metadata: Option<&'a Bound<'py, PyAny>>,
}

impl Given<'_, '_> {
    pub fn is_empty(&self) -> bool {
        [self.expected_revision, self.command_id, self.metadata].iter().all(Option::is_none)
    }
}

impl Terms {
    /// Checks what was given for a command to an entity, and adds what is inherited; none where there is nothing.
    ///
    /// # Errors
    /// `TypeError`, `ValueError`, `CodecError` (a command under an id that cannot be encoded), `MessageTooLargeError`.
    pub fn of(
        given: &Given<'_, '_>,
        command: &Bound<'_, PyAny>,
        kind: &Kind,
        entity: &EntityKey,
    ) -> PyResult<Option<Arc<Self>>> {
        let py = command.py();
        let inherited = context::terms_of_sender(py)?;
        let terms = Self {
            expected: given.expected_revision.map(expected).transpose()?,
            command: given.command_id.map(|id| identified(id, command, kind, entity)).transpose()?,
            metadata: merged(py, inherited.as_deref(), given.metadata, entity)?,
        };
        let empty = terms.expected.is_none() && terms.command.is_none() && terms.metadata.is_empty();
        Ok((!empty).then(|| Arc::new(terms)))
    }

    /// # Errors
    /// `RevisionConflictError`.
    pub fn check_revision(&self, py: Python<'_>, entity: &EntityKey, actual: u64) -> PyResult<()> {
        let (expected, words) = match self.expected {
            None => return Ok(()),
            Some(Expected::Exactly(expected)) if expected == actual => return Ok(()),
            Some(Expected::MustExist) if actual > 0 => return Ok(()),
            Some(Expected::Exactly(0)) => (member(py, "MUST_NOT_EXIST")?, "nothing to be stored".to_owned()),
            Some(Expected::Exactly(expected)) => (expected.into_bound_py_any(py)?, format!("revision {expected}")),
            Some(Expected::MustExist) => (member(py, "MUST_EXIST")?, "something to be stored".to_owned()),
        };
        let message = format!("the command expects {words}, and the entity is at revision {actual}; nothing was run");
        let facts = [("expected", expected), ("actual", actual.into_bound_py_any(py)?)];
        Err(error::with(py, "RevisionConflictError", entity, &message, &facts))
    }

    /// The metadata of the commands that the handler of this one sends: the same, and this one as their cause.
    fn handed_down(&self) -> Vec<u8> {
        let Some(command) = &self.command else { return self.metadata.clone() };
        let before = metadata::pairs(&self.metadata);
        metadata::encode(
            [("correlation_id", &*command.id)].into_iter().chain(before).chain([("causation_id", &*command.id)]),
        )
    }

    /// The metadata as a new dictionary.
    pub fn metadata_of<'py>(this: Option<&Self>, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, this.map_or(&[], |terms| &terms.metadata))
    }
}

/// Encoded metadata as a new dictionary.
///
/// # Errors
/// Those of the interpreter.
pub fn dictionary<'py>(py: Python<'py>, encoded: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (name, value) in metadata::pairs(encoded) {
        found.set_item(name, value)?;
    }
    Ok(found)
}

fn member<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("ego._expected")?.getattr(name)
}

fn expected(given: &Bound<'_, PyAny>) -> PyResult<Expected> {
    let py = given.py();
    match given.extract::<u64>() {
        Ok(revision) if !given.is_instance_of::<PyBool>() => Ok(Expected::Exactly(revision)),
        _ if given.is(member(py, "MUST_EXIST")?) => Ok(Expected::MustExist),
        _ if given.is(member(py, "MUST_NOT_EXIST")?) => Ok(Expected::Exactly(0)),
        _ => Err(PyValueError::new_err(format!(
            "expected_revision is a revision (0 or more), ego.MUST_EXIST or ego.MUST_NOT_EXIST, not {}",
            given.repr()?
        ))),
    }
}

fn identified(
    id: &Bound<'_, PyAny>,
    command: &Bound<'_, PyAny>,
    kind: &Kind,
    entity: &EntityKey,
) -> PyResult<Identified> {
    let py = command.py();
    let refuse = || {
        let shown = id.repr().map(|text| text.to_string()).unwrap_or_default();
        PyValueError::new_err(format!("command_id is a text of 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {shown}"))
    };
    let text = id.cast::<PyString>().map_err(|_| refuse())?.to_str().map_err(|_| refuse())?;
    if text.is_empty() || text.len() > MAX_NAME_BYTES {
        return Err(refuse());
    }
    let encoded = kind.fingerprint.call(py, [command]).and_then(|encoded| Ok(encoded.cast_into::<PyBytes>()?));
    let encoded = encoded.map_err(|failure| {
        let message = "a command that is sent under a command_id must be of a type that msgspec can encode";
        ego_answer::error::from_cause(py, error::about(py, "CodecError", entity, message), failure)
    })?;
    let fingerprint = match kind.command_name(command) {
        Some(class) => commands::fingerprint(class, encoded.as_bytes()),
        None => commands::fingerprint(command.get_type().qualname()?.to_str()?, encoded.as_bytes()),
    };
    Ok(Identified { id: Arc::from(text), fingerprint })
}

/// What is inherited, then what the sending command is the cause of, then what was given: the last one counts.
fn merged(
    py: Python<'_>,
    inherited: Option<&Terms>,
    given: Option<&Bound<'_, PyAny>>,
    entity: &EntityKey,
) -> PyResult<Vec<u8>> {
    let before = inherited.map(Terms::handed_down).unwrap_or_default();
    let encoded = match given {
        None => before,
        Some(given) => encode(&before, given)?,
    };
    if encoded.len() <= MAX_METADATA_BYTES {
        return Ok(encoded);
    }
    let (size, cap) = (encoded.len(), MAX_METADATA_BYTES);
    let message = format!("the metadata takes {size} bytes, more than the {cap} that a command may carry");
    let facts = [("size", size.into_bound_py_any(py)?), ("cap", cap.into_bound_py_any(py)?)];
    Err(error::with(py, "MessageTooLargeError", entity, &message, &facts))
}

/// Metadata as it is stored.
///
/// # Errors
/// `TypeError`: it is no mapping of texts to texts.
pub fn encoded(given: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    encode(&[], given)
}

fn encode(before: &[u8], given: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let copied;
    let given = match given.cast_exact::<PyDict>() {
        Ok(given) => given,
        Err(_) => {
            copied = PyDict::new(given.py());
            let pairs = given.cast::<PyMapping>().map_err(|_| no_metadata(given))?;
            copied.update(pairs).map_err(|_| no_metadata(given))?;
            &copied
        }
    };
    if !before.is_empty() {
        let merged = PyDict::new(given.py());
        for (name, value) in metadata::pairs(before) {
            merged.set_item(name, value)?;
        }
        merged.update(given.as_mapping())?;
        return encode(&[], merged.as_any());
    }
    let mut encoded = metadata::begin(given.len());
    for (name, value) in given {
        let (name, value) = (name.cast::<PyString>(), value.cast::<PyString>());
        match (name.map(|name| name.to_str()), value.map(|value| value.to_str())) {
            (Ok(Ok(name)), Ok(Ok(value))) => metadata::push(&mut encoded, name, value),
            _ => return Err(no_metadata(given)),
        }
    }
    Ok(encoded)
}

fn no_metadata(given: &Bound<'_, PyAny>) -> PyErr {
    let shown = given.repr().map(|text| text.to_string()).unwrap_or_default();
    PyTypeError::new_err(format!("metadata is a mapping of str to str, not {shown}"))
}
