//! Decide, fold, encode, append: the only code that calls `handle_command`.
//!
//! The caller holds the entity's turn. State and revision move on after the journal accepted the unit and not before;
//! whatever is raised until then leaves everything as it was. Nothing here waits, and no lock is held while Python
//! runs.

use crate::entity::{Entity, Live};
use crate::held::Lack;
use crate::repeated::Known;
use crate::terms::Terms;
use crate::unreadable::ours;
use crate::{error, repeated, state};
use ego_answer::fast::attached;
use ego_core::StoreError;
use ego_core::journal::{Command, Content, Journal, Outcome, Record, Ticket, Unit};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::sync::Arc;

/// What the journal says about a ticket.
pub enum Fate {
    /// Nothing yet.
    Open,
    /// It is durable.
    Stored,
    /// It is not, or nobody knows.
    Lost(StoreError),
}

#[inline]
pub fn fate(journal: &dyn Journal, ticket: Ticket) -> Fate {
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
pub fn shown<'py>(py: Python<'py>, live: &Live) -> PyResult<Bound<'py, PyTuple>> {
    match &live.shown {
        Some(shown) => Ok(shown.bind(py).clone()),
        None => PyTuple::new(py, [live.state.bind(py).clone(), live.revision.into_bound_py_any(py)?]),
    }
}

/// What came of a command without waiting.
pub enum Decided<'py> {
    /// The entity has moved on, or stayed where it was.
    Done,
    /// It was answered before, and is again, once the unit that recorded the answer is durable.
    Repeated(PyResult<Bound<'py, PyTuple>>, Ticket),
    /// The awaitable of an `async def` handler.
    Deferred(Bound<'py, PyAny>),
    /// Nothing was run: something has to be waited for.
    Lacking(Lack),
}

/// Runs `handle_command` and what follows from it.
#[inline(always)]
pub fn decide<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    command: &Bound<'py, PyAny>,
) -> PyResult<Decided<'py>> {
    let result = handle(py, entity, live, command)?;
    if is_awaitable(&result) && entity.kind.stored_type(&result).is_none() {
        return Ok(Decided::Deferred(result));
    }
    conclude(py, journal, entity, live, &result, Carried::default())?;
    Ok(Decided::Done)
}

/// The same for a command that carries something: it may have been answered before, or expect another revision.
pub fn decide_on_terms<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Arc<Entity>,
    live: &mut Live,
    command: &Bound<'py, PyAny>,
    terms: &Terms,
) -> PyResult<Decided<'py>> {
    if let Some(identified) = &terms.command {
        match repeated::known(py, journal, entity, live, identified)? {
            Known::Nothing => {}
            Known::Answer(answer, ticket) => return Ok(Decided::Repeated(answer, ticket)),
            Known::Lacking(lack) => return Ok(Decided::Lacking(lack)),
        }
    }
    terms.check_revision(py, &entity.key, live.revision)?;
    let result = handle(py, entity, live, command);
    if let Ok(result) = &result
        && is_awaitable(result)
        && entity.kind.stored_type(result).is_none()
    {
        return Ok(Decided::Deferred(result.clone()));
    }
    conclude_on_terms(py, journal, entity, live, result, terms).map(|()| Decided::Done)
}

#[inline(always)]
fn handle<'py>(
    py: Python<'py>,
    entity: &Entity,
    live: &Live,
    command: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let (kind, behavior, state) = (&entity.kind, live.behavior.bind(py), live.state.bind(py));
    if kind.is_durable_state {
        let version = match &live.shown {
            Some(shown) => shown.bind(py).get_item(1)?,
            None => live.revision.into_bound_py_any(py)?,
        };
        return kind.handle_command.call(py, [behavior, command, &version, state]);
    }
    kind.handle_command.call(py, [behavior, command, state])
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

/// What is stored beside what a command changes.
#[derive(Clone, Copy, Default)]
pub struct Carried<'a> {
    metadata: &'a [u8],
    command: Option<Command<'a>>,
}

/// What a handler's result or exception comes to, for a command that carries something. A rejection is remembered
/// where the command has an id, and raised again.
pub fn conclude_on_terms(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    result: PyResult<Bound<'_, PyAny>>,
    terms: &Terms,
) -> PyResult<()> {
    let command = terms.command.as_ref();
    let record = command.map(|it| Command { id: &it.id, fingerprint: it.fingerprint, rejection: None });
    let carried = Carried { metadata: &terms.metadata, command: record };
    let before = live.revision;
    let concluded = result.and_then(|result| conclude(py, journal, entity, live, &result, carried));
    let Some(command) = command else { return concluded };
    let rejection = match &concluded {
        Ok(()) => None,
        Err(failure) => match repeated::rejection(py, failure)? {
            Some(rejection) => Some(rejection),
            None => return concluded,
        },
    };
    if let Some(rejection) = &rejection {
        let rejection = Some(Record { name: &rejection.name, version: rejection.version, payload: &rejection.payload });
        let carried = Carried { command: record.map(|record| Command { rejection, ..record }), ..carried };
        append(py, journal, entity, live, Content::Events(&[]), carried)?;
    }
    repeated::remember(py, entity, live, command, rejection, live.revision == before);
    concluded
}

/// Folds, encodes and appends what a handler returned, and moves the entity on.
#[inline(always)]
pub fn conclude(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    result: &Bound<'_, PyAny>,
    carried: Carried<'_>,
) -> PyResult<()> {
    if entity.kind.is_durable_state {
        return state::conclude(py, journal, entity, live, result, carried);
    }
    if result.is_none() {
        return append(py, journal, entity, live, Content::Events(&[]), carried);
    }
    if let Ok(events) = result.cast_exact::<PyList>() {
        return attached(|py| conclude_all(py, journal, entity, live, events.iter().collect(), carried));
    }
    if let Ok(events) = result.cast_exact::<PyTuple>() {
        return attached(|py| conclude_all(py, journal, entity, live, events.iter().collect(), carried));
    }
    let Some(stored) = entity.kind.stored_type(result) else { return Err(entity.kind.no_event(result, &entity.key)) };
    let state = fold(py, entity, live, result, live.state.bind(py))?;
    let payload = encode(py, entity, result, "an event")?;
    let record = Record { name: &stored.name, version: stored.version, payload: payload.as_bytes() };
    append(py, journal, entity, live, Content::Events(&[record]), carried)?;
    std::mem::replace(&mut live.state, state.unbind()).drop_ref(py);
    Ok(())
}

fn conclude_all(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    events: Vec<Bound<'_, PyAny>>,
    carried: Carried<'_>,
) -> PyResult<()> {
    let mut state = live.state.bind(py).clone();
    let mut encoded = Vec::with_capacity(events.len());
    for event in &events {
        let Some(stored) = entity.kind.stored_type(event) else { return Err(entity.kind.no_event(event, &entity.key)) };
        state = fold(py, entity, live, event, &state)?;
        encoded.push((stored, encode(py, entity, event, "an event")?));
    }
    let records: Vec<_> = encoded
        .iter()
        .map(|(stored, payload)| Record { name: &stored.name, version: stored.version, payload: payload.as_bytes() })
        .collect();
    append(py, journal, entity, live, Content::Events(&records), carried)?;
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
pub fn encode<'py>(
    py: Python<'py>,
    entity: &Entity,
    value: &Bound<'py, PyAny>,
    what: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoded = entity.kind.encode.call(py, [value]).and_then(|encoded| Ok(encoded.cast_into::<PyBytes>()?));
    encoded.map_err(|failure| {
        ours(py, failure, |_| {
            let name = value.get_type().qualname()?;
            Ok(error::about(py, "CodecError", &entity.key, &format!("{what} of type {name} cannot be encoded")))
        })
    })
}

/// Hands over what a command changes; a command without an id that changes nothing stores nothing.
#[inline(always)]
pub fn append(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    content: Content<'_>,
    carried: Carried<'_>,
) -> PyResult<()> {
    let count = content.count() as u64;
    let Carried { metadata, command } = carried;
    if count == 0 && command.is_none() {
        return Ok(());
    }
    if entity.away.get(py) {
        let message = "the engine was stopped while the handler ran; nothing of the command is stored";
        return Err(attached(|py| error::not_started(py, message)));
    }
    match journal.append(&Unit { entity: &entity.key, first_revision: live.revision + 1, content, command, metadata }) {
        Ok(ticket) => {
            live.last_ticket = ticket;
            live.revision += count;
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
