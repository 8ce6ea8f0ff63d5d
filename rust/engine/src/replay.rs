//! Brings an entity into memory from what is durable of it: its events are copied out of the journal in chunks, and
//! each chunk is decoded and folded.
//!
//! The caller holds the entity's turn. No lock is held while Python runs.

use crate::context::Frame;
use crate::entity::{Entity, Live};
use crate::kind::Decoder;
use crate::{error, state};
use ego_core::history::{self, Chunk, StoredType};
use ego_core::journal::{Journal, Read};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::sync::Arc;

/// Brings an entity into memory.
pub fn load(py: Python<'_>, journal: &dyn Journal, entity: &Arc<Entity>) -> PyResult<Live> {
    Frame::new(entity, 0, None).run(|| {
        let kind = &entity.kind;
        let behavior = kind.create.call(py, [&PyString::new(py, &entity.key.id), &entity.declared(py)])?;
        let mut live = fresh(py, entity, &behavior)?;
        if kind.is_durable_state {
            if let Some((state, version)) = state::read(py, journal, entity, u64::MAX)? {
                live.state = state.unbind();
                live.revision = version;
            }
        } else {
            fold_stored(py, journal, entity, &mut live, u64::MAX)?;
        }
        Ok(live)
    })
}

/// The state of a live entity as it was at an older revision.
pub fn state_at<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Arc<Entity>,
    live: &Live,
    revision: u64,
) -> PyResult<Bound<'py, PyAny>> {
    Frame::new(entity, revision, None).run(|| {
        if entity.kind.is_durable_state && revision > 0 {
            let found = state::read(py, journal, entity, revision)?;
            return Ok(found.map_or_else(|| live.state.bind(py).clone(), |(state, _)| state));
        }
        let mut older = fresh(py, entity, live.behavior.bind(py))?;
        if revision > 0 {
            fold_stored(py, journal, entity, &mut older, revision)?;
        }
        Ok(older.state.into_bound(py))
    })
}

/// An entity before its first event.
fn fresh(py: Python<'_>, entity: &Entity, behavior: &Bound<'_, PyAny>) -> PyResult<Live> {
    let state = entity.kind.initial_state.call(py, [behavior])?;
    entity.kind.check_state(&state, &entity.key, "initial_state")?;
    let (behavior, state) = (behavior.clone().unbind(), state.unbind());
    Ok(Live { behavior, state, revision: 0, last_ticket: 0, commands: None })
}

/// Moves an entity on by what is stored after its revision, up to a revision.
fn fold_stored(py: Python<'_>, journal: &dyn Journal, entity: &Entity, live: &mut Live, until: u64) -> PyResult<()> {
    let mut folded = Ok(());
    let read = history::read(journal, &entity.key, live.revision + 1, &mut |chunk| {
        folded = fold(py, entity, live, chunk, until);
        if folded.is_ok() && live.revision < until { Read::More } else { Read::Enough }
    });
    folded?;
    let last = read.map_err(|failure| error::storage(py, &failure))?;
    if live.revision == 0 && last > 0 {
        let message = "the store holds durable states of this entity, and its behavior is an event-sourced one";
        let fact = ("revision", last.into_bound_py_any(py)?);
        return Err(error::with(py, "ReplayError", &entity.key, message, &[fact]));
    }
    Ok(())
}

/// Moves an entity on by the events of a chunk, up to a revision.
fn fold(py: Python<'_>, entity: &Entity, live: &mut Live, chunk: &Chunk, until: u64) -> PyResult<()> {
    let mut last: Option<(&StoredType, &Decoder)> = None;
    for event in chunk.events().take_while(|event| event.revision <= until) {
        let decoder = match last {
            // Events of one type tend to follow each other.
            Some((stored, decoder)) if std::ptr::eq(stored, event.stored) => decoder,
            _ => decoder(py, entity, &event.stored.name, event.stored.version, event.revision)?,
        };
        last = Some((event.stored, decoder));
        let decoded = decode(py, entity, decoder, event.payload, event.revision)?;
        let state = replay(py, entity, live, &decoded, event.revision)?;
        std::mem::replace(&mut live.state, state.unbind()).drop_ref(py);
        live.revision = event.revision;
    }
    Ok(())
}

/// What reads a stored event or state.
///
/// # Errors
/// `UnknownEventError`.
pub fn decoder<'a>(
    py: Python<'_>,
    entity: &'a Entity,
    name: &str,
    version: u32,
    revision: u64,
) -> PyResult<&'a Decoder> {
    entity.kind.decoder(name, version).ok_or_else(|| unknown_event(py, entity, name, version, revision))
}

/// A stored event or state, decoded.
///
/// # Errors
/// `CodecError`, `UpcastError`, and what is no `Exception`.
#[inline]
pub fn decode<'py>(
    py: Python<'py>,
    entity: &Entity,
    decoder: &Decoder,
    payload: &[u8],
    revision: u64,
) -> PyResult<Bound<'py, PyAny>> {
    decoder.decode.call(py, [&PyBytes::new(py, payload)]).map_err(|failure| {
        if error::is_one_of_ours(py, &failure) {
            return error::at(py, failure, &entity.key, revision);
        }
        let what = if entity.kind.is_durable_state { "state" } else { "event" };
        let message = format!("stored {what} {revision} cannot be decoded");
        ours(py, failure, |_| Ok(error::about(py, "CodecError", &entity.key, &message)))
    })
}

#[inline]
fn replay<'py>(
    py: Python<'py>,
    entity: &Entity,
    live: &Live,
    event: &Bound<'py, PyAny>,
    revision: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = &entity.kind;
    let folded = kind.handle_event.call(py, [live.behavior.bind(py), event, live.state.bind(py)]);
    let checked = folded.and_then(|state| kind.check_state(&state, &entity.key, "handle_event").map(|()| state));
    checked.map_err(|failure| {
        ours(py, failure, |_| {
            let message = format!("handle_event does not take stored event {revision}");
            let fact = ("revision", revision.into_bound_py_any(py)?);
            Ok(error::with(py, "ReplayError", &entity.key, &message, &[fact]))
        })
    })
}

fn unknown_event(py: Python<'_>, entity: &Entity, name: &str, version: u32, revision: u64) -> PyErr {
    let what = if entity.kind.is_durable_state { "state" } else { "event" };
    let message = format!(
        "{what} {revision} is stored as {name:?} version {version}, which no {what} type of this kind declares"
    );
    let facts = (|| {
        Ok([
            ("name", name.into_bound_py_any(py)?),
            ("version", version.into_bound_py_any(py)?),
            ("revision", revision.into_bound_py_any(py)?),
        ])
    })();
    match facts {
        Ok(facts) => error::with(py, "UnknownEventError", &entity.key, &message, &facts),
        Err(failure) => failure,
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
