//! The only code that calls `handle_command`: decide, fold, encode, append.
//!
//! The caller holds the entity's turn. State and revision move on after the journal accepted the unit and not before;
//! whatever is raised until then leaves everything as it was. Nothing here waits, and no lock is held while Python
//! runs.

use crate::entity::{Entity, Live};
use crate::error;
use crate::fast::attached;
use crate::replay::ours;
use ego_core::StoreError;
use ego_core::journal::{Journal, Outcome, Record, Ticket, Unit};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

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
    let unit = Unit { entity: &entity.key, first_revision: live.revision + 1, records };
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
