//! Brings an entity into memory from what is durable of it: its events are copied out of the journal in chunks, and
//! each chunk is decoded and folded.
//!
//! The caller holds the entity's turn. No lock is held while Python runs.

use crate::context::Frame;
use crate::entity::{Entity, Live};
use crate::error;
use crate::kind::Decoder;
use ego_core::history::{self, Chunk, ChunkEvent, StoredType};
use ego_core::journal::{Journal, Read};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::sync::Arc;

/// Brings an entity into memory.
pub(crate) fn load(py: Python<'_>, journal: &dyn Journal, entity: &Arc<Entity>) -> PyResult<Live> {
    let frame = Frame::new(entity, 0);
    let live = frame.run(|| load_under_frame(py, journal, entity))?;
    entity.declared.set(py, true);
    Ok(live)
}

fn load_under_frame(py: Python<'_>, journal: &dyn Journal, entity: &Arc<Entity>) -> PyResult<Live> {
    let mut live = fresh(py, entity)?;
    let mut folded = Ok(());
    let read = history::read(journal, &entity.key, 1, &mut |chunk| {
        folded = fold(py, entity, &mut live, chunk);
        if folded.is_ok() { Read::More } else { Read::Enough }
    });
    folded?;
    read.map_err(|failure| error::storage(py, &failure))?;
    Ok(live)
}

/// An entity before its first event.
fn fresh(py: Python<'_>, entity: &Entity) -> PyResult<Live> {
    let kind = &entity.kind;
    let behavior = kind.create.call(py, [&PyString::new(py, &entity.key.id)])?;
    let state = kind.initial_state.call(py, [&behavior])?;
    kind.check_state(&state, &entity.key, "initial_state")?;
    Ok(Live { behavior: behavior.unbind(), state: state.unbind(), revision: 0, last_ticket: 0 })
}

/// Moves an entity on by the events of a chunk.
fn fold(py: Python<'_>, entity: &Entity, live: &mut Live, chunk: &Chunk) -> PyResult<()> {
    let mut last: Option<(&StoredType, &Decoder)> = None;
    for event in chunk.events() {
        let decoder = match last {
            // Events of one type tend to follow each other.
            Some((stored, decoder)) if std::ptr::eq(stored, event.stored) => decoder,
            _ => {
                let found = entity.kind.decoder(&event.stored.name, event.stored.version);
                found.ok_or_else(|| unknown_event(py, entity, &event))?
            }
        };
        last = Some((event.stored, decoder));
        let decoded = decode(py, entity, decoder, &event)?;
        let state = replay(py, entity, live, &decoded, event.revision)?;
        std::mem::replace(&mut live.state, state.unbind()).drop_ref(py);
        live.revision = event.revision;
    }
    Ok(())
}

#[inline]
fn decode<'py>(
    py: Python<'py>,
    entity: &Entity,
    decoder: &Decoder,
    event: &ChunkEvent<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    decoder.decode.call(py, [&PyBytes::new(py, event.payload)]).map_err(|failure| {
        let message = format!("stored event {} cannot be decoded", event.revision);
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

fn unknown_event(py: Python<'_>, entity: &Entity, event: &ChunkEvent<'_>) -> PyErr {
    let (name, version, revision) = (&event.stored.name, event.stored.version, event.revision);
    let message =
        format!("event {revision} is stored as {name:?} version {version}, which no event type of this kind declares");
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
pub(crate) fn ours(py: Python<'_>, failure: PyErr, make: impl FnOnce(&PyErr) -> PyResult<PyErr>) -> PyErr {
    if !failure.is_instance_of::<PyException>(py) {
        return failure;
    }
    match make(&failure) {
        Ok(made) => error::from_cause(py, made, failure),
        Err(broken) => broken,
    }
}
