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
use pyo3::types::{PyBool, PyBytes, PyDict, PyString};
use std::sync::Arc;

/// Which revisions a command runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Exactly(u64),
    MustExist,
}

/// The id of a command, and what tells it from another one under that id.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) id: String,
    pub(crate) fingerprint: [u8; 16],
}

#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub(crate) expected: Option<Expected>,
    pub(crate) command: Option<Identified>,
    /// Encoded; empty for none.
    pub(crate) metadata: Vec<u8>,
}

/// The same as it was given.
#[derive(Default)]
pub(crate) struct Given<'a, 'py> {
    pub(crate) expected_revision: Option<&'a Bound<'py, PyAny>>,
    pub(crate) command_id: Option<&'a Bound<'py, PyAny>>,
    pub(crate) metadata: Option<&'a Bound<'py, PyAny>>,
}

impl Given<'_, '_> {
    pub(crate) fn is_some(&self) -> bool {
        let given = [self.expected_revision, self.command_id, self.metadata];
        given.into_iter().flatten().any(|given| !given.is_none())
    }
}

impl Terms {
    /// Checks what was given for a command to an entity, and adds what is inherited; none where there is nothing.
    ///
    /// # Errors
    /// `TypeError`, `ValueError`, `CodecError` (a command under an id that cannot be encoded), `MessageTooLargeError`.
    pub(crate) fn of(
        given: &Given<'_, '_>,
        command: &Bound<'_, PyAny>,
        kind: &Kind,
        entity: &EntityKey,
    ) -> PyResult<Option<Arc<Self>>> {
        let py = command.py();
        let inherited = context::terms_of_sender(py)?;
        let terms = Self {
            expected: given.expected_revision.map(expected).transpose()?.flatten(),
            command: match given.command_id {
                Some(id) if !id.is_none() => Some(identified(id, command, kind, entity)?),
                _ => None,
            },
            metadata: merged(py, inherited.as_deref(), given.metadata.filter(|given| !given.is_none()), entity)?,
        };
        let empty = terms.expected.is_none() && terms.command.is_none() && terms.metadata.is_empty();
        Ok((!empty).then(|| Arc::new(terms)))
    }

    /// # Errors
    /// `RevisionConflictError`.
    pub(crate) fn check_revision(&self, py: Python<'_>, entity: &EntityKey, actual: u64) -> PyResult<()> {
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

    /// The metadata as a new dictionary.
    pub(crate) fn metadata_of<'py>(this: Option<&Self>, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, this.map_or(&[], |terms| &terms.metadata))
    }
}

/// Encoded metadata as a new dictionary.
pub(crate) fn dictionary<'py>(py: Python<'py>, encoded: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (name, value) in metadata::pairs(encoded) {
        found.set_item(name, value)?;
    }
    Ok(found)
}

fn member<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("ego._expected")?.getattr(name)
}

fn expected(given: &Bound<'_, PyAny>) -> PyResult<Option<Expected>> {
    let py = given.py();
    if given.is_none() {
        return Ok(None);
    }
    if given.is(member(py, "MUST_EXIST")?) {
        return Ok(Some(Expected::MustExist));
    }
    if given.is(member(py, "MUST_NOT_EXIST")?) {
        return Ok(Some(Expected::Exactly(0)));
    }
    match given.extract::<u64>() {
        Ok(revision) if !given.is_instance_of::<PyBool>() => Ok(Some(Expected::Exactly(revision))),
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
    let class = command.get_type().qualname()?;
    Ok(Identified { id: text.to_owned(), fingerprint: commands::fingerprint(class.to_str()?, encoded.as_bytes()) })
}

/// What is inherited, then what the sending command is the cause of, then what was given: the last one counts.
fn merged(
    py: Python<'_>,
    inherited: Option<&Terms>,
    given: Option<&Bound<'_, PyAny>>,
    entity: &EntityKey,
) -> PyResult<Vec<u8>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    if let Some(terms) = inherited {
        let before = metadata::pairs(&terms.metadata);
        if let Some(command) = &terms.command {
            if !before.iter().any(|(name, _)| *name == "correlation_id") {
                pairs.push(("correlation_id".to_owned(), command.id.clone()));
            }
            pairs.extend(before.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            pairs.push(("causation_id".to_owned(), command.id.clone()));
        } else {
            pairs.extend(before.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        }
    }
    let encoded = match given {
        None => metadata::encode(pairs.iter().map(|(name, value)| (&**name, &**value))),
        Some(given) => encode(&pairs, given, entity)?,
    };
    check_size(py, encoded.len(), entity).map(|()| encoded)
}

fn check_size(py: Python<'_>, size: usize, entity: &EntityKey) -> PyResult<()> {
    let cap = MAX_METADATA_BYTES;
    if size <= cap {
        return Ok(());
    }
    let message = format!("the metadata takes {size} bytes, more than the {cap} that a command may carry");
    let facts = [("size", size.into_bound_py_any(py)?), ("cap", cap.into_bound_py_any(py)?)];
    Err(error::with(py, "MessageTooLargeError", entity, &message, &facts))
}

fn encode(before: &[(String, String)], given: &Bound<'_, PyAny>, entity: &EntityKey) -> PyResult<Vec<u8>> {
    let py = given.py();
    let refuse = || {
        let shown = given.repr().map(|text| text.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("metadata is a mapping of str to str, not {shown}"))
    };
    let given = match given.cast_exact::<PyDict>() {
        Ok(given) => given.clone(),
        Err(_) => {
            let copied = PyDict::new(py);
            copied.update(given.cast().map_err(|_| refuse())?).map_err(|_| refuse())?;
            copied
        }
    };
    let given: Vec<_> = given.iter().collect();
    let mut pairs: Vec<(&str, &str)> = before.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut size = 0;
    for (name, value) in &given {
        let text = |part| Bound::cast::<PyString>(part).ok().and_then(|part| part.to_str().ok());
        let (Some(name), Some(value)) = (text(name), text(value)) else { return Err(refuse()) };
        size += name.len() + value.len() + 2;
        pairs.push((name, value));
    }
    // Before much time is spent on what is too large.
    check_size(py, size, entity)?;
    Ok(metadata::encode(pairs))
}
