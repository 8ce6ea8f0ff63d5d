//! The one way from facts in Rust to the exceptions of `ego._errors`.

use ego_core::StoreError;
use ego_core::journal::EntityKey;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

/// The facts of an error, copied to attributes.
pub type Facts<'py> = Bound<'py, PyDict>;

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || PyResult::Ok(py.import("ego._errors")?.into_any().unbind()))?;
    Ok(module.bind(py))
}

/// An exception of `ego._errors` with a message and facts.
pub fn raise(py: Python<'_>, class: &str, message: &str, facts: &Facts<'_>) -> PyErr {
    let made = module(py).and_then(|module| module.getattr(class)?.call((message,), Some(facts)));
    made.map_or_else(|failure| failure, PyErr::from_value)
}

/// The same about one entity.
pub fn about(py: Python<'_>, class: &str, entity: &EntityKey, message: &str) -> PyErr {
    with(py, class, entity, message, &[])
}

/// The same with one more fact or more.
pub fn with(
    py: Python<'_>,
    class: &str,
    entity: &EntityKey,
    message: &str,
    more: &[(&str, Bound<'_, PyAny>)],
) -> PyErr {
    let facts = PyDict::new(py);
    let set = facts.set_item(intern!(py, "kind"), &*entity.kind);
    let mut set = set.and_then(|()| facts.set_item(intern!(py, "entity_id"), &*entity.id));
    for (name, fact) in more {
        set = set.and_then(|()| facts.set_item(name, fact));
    }
    match set {
        Ok(()) => raise(py, class, &format!("{}/{}: {message}", entity.kind, entity.id), &facts),
        Err(failure) => failure,
    }
}

/// Whether this is an error of ours, with facts of its own.
pub fn is_one_of_ours(py: Python<'_>, failure: &PyErr) -> bool {
    let class = module(py).and_then(|module| module.getattr("EgoError"));
    class.is_ok_and(|class| failure.value(py).is_instance(&class).unwrap_or(false))
}

/// Says where an error of ours happened.
pub fn at(py: Python<'_>, failure: PyErr, entity: &EntityKey, revision: u64) -> PyErr {
    let value = failure.value(py);
    let set = value
        .setattr(intern!(py, "kind"), &*entity.kind)
        .and_then(|()| value.setattr(intern!(py, "entity_id"), &*entity.id))
        .and_then(|()| value.setattr(intern!(py, "revision"), revision));
    set.err().unwrap_or(failure)
}

/// Not started, stopping, or called from elsewhere.
pub fn not_started(py: Python<'_>, message: &str) -> PyErr {
    raise(py, "EngineNotStartedError", message, &PyDict::new(py))
}

/// Too late: `outcome` is "not_run" or "unknown".
pub fn too_late(py: Python<'_>, entity: &EntityKey, outcome: &str, message: &str) -> PyErr {
    match outcome.into_bound_py_any(py) {
        Ok(outcome) => with(py, "CommandTimeoutError", entity, message, &[("outcome", outcome)]),
        Err(failure) => failure,
    }
}

/// A storage failure as the class of the tree that fits.
pub fn storage(py: Python<'_>, error: &StoreError) -> PyErr {
    let facts = PyDict::new(py);
    match fill(error, &facts) {
        Ok(class) => raise(py, class, &error.to_string(), &facts),
        Err(failure) => failure,
    }
}

fn fill(error: &StoreError, facts: &Facts<'_>) -> PyResult<&'static str> {
    use StoreError as E;
    let path = |path: &std::path::PathBuf| facts.set_item("path", path.to_string_lossy());
    Ok(match error {
        E::Corrupt { path: p, offset, detail } => {
            path(p)?;
            facts.set_item("offset", offset)?;
            facts.set_item("detail", detail)?;
            "CorruptLogError"
        }
        E::Format { path: p, .. } => {
            path(p)?;
            "StoreFormatError"
        }
        E::Full { path: p } => {
            path(p)?;
            "StoreFullError"
        }
        E::Locked { path: p, pid } => {
            path(p)?;
            facts.set_item("pid", pid)?;
            "StoreLockedError"
        }
        E::Poisoned { cause } => {
            facts.set_item("cause", &**cause)?;
            "StorePoisonedError"
        }
        E::Forked { path: p, pid } => {
            path(p)?;
            facts.set_item("pid", pid)?;
            "ForkedStoreError"
        }
        E::OutcomeUnknown { cause } => {
            facts.set_item("cause", &**cause)?;
            "OutcomeUnknownError"
        }
        E::Conflict { kind, id, expected, actual } => {
            facts.set_item("kind", &**kind)?;
            facts.set_item("entity_id", &**id)?;
            facts.set_item("expected", expected)?;
            facts.set_item("actual", actual)?;
            "RevisionConflictError"
        }
        E::TooLarge { kind, id, size, cap } => {
            facts.set_item("kind", &**kind)?;
            facts.set_item("entity_id", &**id)?;
            facts.set_item("size", size)?;
            facts.set_item("cap", cap)?;
            "MessageTooLargeError"
        }
        E::NoteTooLarge { size, .. } => {
            facts.set_item("size", size)?;
            "MessageTooLargeError"
        }
        E::Io { path: p, source, .. } => {
            path(p)?;
            facts.set_item("errno", source.raw_os_error())?;
            "StorageError"
        }
        _ => "StorageError",
    })
}

/// The entities of a deadlock, each waiting for the next.
pub fn deadlock(py: Python<'_>, chain: &[&EntityKey]) -> PyErr {
    let names: Vec<String> = chain.iter().map(|key| format!("{}/{}", key.kind, key.id)).collect();
    let message = format!("would wait for itself: {}", names.join(" -> "));
    let (Some(first), Ok(names)) = (chain.first(), PyTuple::new(py, names)) else {
        return not_started(py, &message);
    };
    with(py, "DeadlockError", first, &message, &[("chain", names.into_any())])
}
