//! The only code that calls a user's handler: load, decide, fold, encode, append.
//!
//! The caller holds the entity's turn. State and revision move on after the journal accepted the unit and not before;
//! whatever is raised until then leaves everything as it was. Nothing here waits, and no lock is held while Python
//! runs.

use crate::context::Frame;
use crate::entity::{Entity, Live};
use crate::error;
use ego_answer::fast::attached;
use ego_core::StoreError;
use ego_core::journal::{Content, Journal, Outcome, Read, Record, StoredEvent, Ticket, Unit};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use std::sync::Arc;

/// What the journal says about a ticket.
pub(crate) enum Fate {
    /// Nothing yet.
    Open,
    /// It is durable.
    Stored,
    /// It is not, or nobody knows.
    Lost(StoreError),
}

#[inline]
pub(crate) fn fate(journal: &dyn Journal, ticket: Ticket) -> Fate {
    if ticket == 0 {
        return Fate::Stored;
    }
    if journal.settled() < ticket {
        return Fate::Open;
    }
    match journal.outcome(ticket) {
        Outcome::Stored => Fate::Stored,
        Outcome::Refused(failure) | Outcome::Unknown(failure) => Fate::Lost(failure),
    }
}

/// What is shown of an entity: `(state, revision)`.
#[inline]
pub(crate) fn shown<'py>(py: Python<'py>, live: &Live) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, [live.state.bind(py).clone(), live.revision.into_bound_py_any(py)?])
}

/// Brings an entity into memory from what is durable of it.
pub(crate) fn load(py: Python<'_>, journal: &dyn Journal, entity: &Arc<Entity>) -> PyResult<Live> {
    let frame = Frame::new(entity, 0);
    let live = frame.run(|| load_under_frame(py, journal, entity))?;
    entity.declared.set(py, true);
    Ok(live)
}

fn load_under_frame(py: Python<'_>, journal: &dyn Journal, entity: &Arc<Entity>) -> PyResult<Live> {
    let kind = &entity.kind;
    let behavior = kind.create.call(py, [&PyString::new(py, &entity.key.id)])?;
    let mut state = kind.initial_state.call(py, [&behavior])?;
    kind.check_state(&state, &entity.key, "initial_state")?;
    let mut revision = 0;
    let mut folded = Ok(());
    let read = journal.read_entity(&entity.key, 1, &mut |event| match replay(py, entity, &behavior, &state, &event) {
        Ok(next) => {
            state = next;
            revision = event.revision;
            Read::More
        }
        Err(failure) => {
            folded = Err(failure);
            Read::Enough
        }
    });
    read.map_err(|failure| error::storage(py, &failure))?;
    folded?;
    Ok(Live { behavior: behavior.unbind(), state: state.unbind(), revision, last_ticket: 0 })
}

fn unknown_event(py: Python<'_>, entity: &Entity, event: &StoredEvent<'_>) -> PyErr {
    let StoredEvent { name, version, revision, .. } = *event;
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

fn replay<'py>(
    py: Python<'py>,
    entity: &Entity,
    behavior: &Bound<'py, PyAny>,
    state: &Bound<'py, PyAny>,
    event: &StoredEvent<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = &entity.kind;
    let Some(decoder) = kind.decoder(event.name, event.version) else { return Err(unknown_event(py, entity, event)) };
    let decoded = decoder.decode.call(py, [&PyBytes::new(py, event.payload)]).map_err(|failure| {
        let message = format!("stored event {} cannot be decoded", event.revision);
        ours(py, failure, |_| Ok(error::about(py, "CodecError", &entity.key, &message)))
    })?;
    let folded = kind.handle_event.call(py, [behavior, &decoded, state]).and_then(|folded| {
        kind.check_state(&folded, &entity.key, "handle_event")?;
        Ok(folded)
    });
    folded.map_err(|failure| {
        ours(py, failure, |_| {
            let message = format!("handle_event does not take stored event {}", event.revision);
            let fact = ("revision", event.revision.into_bound_py_any(py)?);
            Ok(error::with(py, "ReplayError", &entity.key, &message, &[fact]))
        })
    })
}

/// An error of ours with the user's as its cause; what is no `Exception` stays what it is.
fn ours(py: Python<'_>, failure: PyErr, make: impl FnOnce(&PyErr) -> PyResult<PyErr>) -> PyErr {
    if !failure.is_instance_of::<PyException>(py) {
        return failure;
    }
    match make(&failure) {
        Ok(made) => ego_answer::error::from_cause(py, made, failure),
        Err(broken) => broken,
    }
}

/// Runs `handle_command` and what follows from it. Gives the awaitable of an `async def` handler back.
#[inline(always)]
pub(crate) fn decide<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    command: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let handle_command = &entity.kind.handle_command;
    let result = handle_command.call(py, [live.behavior.bind(py), command, live.state.bind(py)])?;
    if is_awaitable(&result) && entity.kind.event_type(&result).is_none() {
        return Ok(Some(result));
    }
    conclude(py, journal, entity, live, &result)?;
    Ok(None)
}

/// Whether `await` takes the object.
#[inline]
fn is_awaitable(object: &Bound<'_, PyAny>) -> bool {
    #[expect(unsafe_code, reason = "a slot of the type answers it without a call")]
    // SAFETY: a live object has a type, and the type's async slots are null or a table that lives as long as the type.
    unsafe {
        let slots = (*object.get_type_ptr()).tp_as_async;
        !slots.is_null() && (*slots).am_await.is_some()
    }
}

/// Folds, encodes and appends what a handler returned, and moves the entity on.
#[inline(always)]
pub(crate) fn conclude(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    result: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if result.is_none() {
        return Ok(());
    }
    if let Ok(events) = result.cast_exact::<PyList>() {
        return attached(|py| conclude_all(py, journal, entity, live, events.iter().collect()));
    }
    if let Ok(events) = result.cast_exact::<PyTuple>() {
        return attached(|py| conclude_all(py, journal, entity, live, events.iter().collect()));
    }
    let Some(stored) = entity.kind.event_type(result) else { return Err(entity.kind.no_event(result, &entity.key)) };
    let state = fold(py, entity, live, result, live.state.bind(py))?;
    let payload = encode(py, entity, result)?;
    let record = Record { name: &stored.name, version: stored.version, payload: payload.as_bytes() };
    append(journal, entity, live, &[record])?;
    std::mem::replace(&mut live.state, state.unbind()).drop_ref(py);
    Ok(())
}

fn conclude_all(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    events: Vec<Bound<'_, PyAny>>,
) -> PyResult<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut state = live.state.bind(py).clone();
    let mut encoded = Vec::with_capacity(events.len());
    for event in &events {
        let Some(stored) = entity.kind.event_type(event) else { return Err(entity.kind.no_event(event, &entity.key)) };
        state = fold(py, entity, live, event, &state)?;
        encoded.push((stored, encode(py, entity, event)?));
    }
    let records: Vec<_> = encoded
        .iter()
        .map(|(stored, payload)| Record { name: &stored.name, version: stored.version, payload: payload.as_bytes() })
        .collect();
    append(journal, entity, live, &records)?;
    live.state = state.unbind();
    Ok(())
}

#[inline(always)]
fn fold<'py>(
    py: Python<'py>,
    entity: &Entity,
    live: &Live,
    event: &Bound<'py, PyAny>,
    state: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let folded = entity.kind.handle_event.call(py, [live.behavior.bind(py), event, state])?;
    entity.kind.check_state(&folded, &entity.key, "handle_event")?;
    Ok(folded)
}

#[inline(always)]
fn encode<'py>(py: Python<'py>, entity: &Entity, event: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let encoded = entity.kind.encode.call(py, [event]).and_then(|encoded| Ok(encoded.cast_into::<PyBytes>()?));
    encoded.map_err(|failure| {
        ours(py, failure, |_| {
            let name = event.get_type().qualname()?;
            Ok(error::about(py, "CodecError", &entity.key, &format!("an event of type {name} cannot be encoded")))
        })
    })
}

#[inline(always)]
fn append(journal: &dyn Journal, entity: &Entity, live: &mut Live, records: &[Record<'_>]) -> PyResult<()> {
    let content = Content::Events(records);
    let first_revision = live.revision + 1;
    let unit = Unit { entity: &entity.key, first_revision, content, command: None, metadata: &[] };
    match journal.append(&unit) {
        Ok(ticket) => {
            live.last_ticket = ticket;
            live.revision += records.len() as u64;
            Ok(())
        }
        Err(failure) => attached(|py| {
            if matches!(failure, StoreError::Conflict { .. }) {
                // What is in memory follows a unit that was refused meanwhile.
                entity.forget(py, entity.generation(py));
            }
            Err(error::storage(py, &failure))
        }),
    }
}
