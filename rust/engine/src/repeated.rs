//! Commands with an id: what is remembered of them, and what a repeated one is answered.

use crate::entity::{Entity, Live};
use crate::terms::Identified;
use crate::turn::{Fate, fate};
use crate::{error, replay};
use ego_core::entities::commands::{Commands, Rejection, Remembered, oldest};
use ego_core::journal::{Journal, Read, Ticket};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::Arc;

/// The commands that an entity remembers.
pub type Memory = Commands<Py<PyAny>>;

/// What a command with an id was answered before, or the rejection that it was refused with, and the unit that recorded
/// it; none where it is new.
///
/// # Errors
/// `CommandIdReusedError`: the id belongs to another command; what reading the store raises.
pub fn repeated<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Arc<Entity>,
    live: &mut Live,
    command: &Identified,
) -> PyResult<Option<(PyResult<Bound<'py, PyTuple>>, Ticket)>> {
    let (now, retention) = (entity.kind.house.clock.wall_nanos_at_tick(), entity.kind.retention);
    let memory = match &mut live.commands {
        Some(memory) => memory,
        empty => empty.insert(Box::new(recall(py, journal, entity, now)?)),
    };
    memory.settle(journal.settled(), drop);
    let found = memory.find(&command.id, now, retention);
    let Some(found) = found.filter(|found| !matches!(fate(journal, found.ticket), Fate::Lost(_))) else {
        return Ok(None);
    };
    let ticket = found.ticket;
    if found.fingerprint != command.fingerprint {
        let message = format!("command id {:?} belongs to another command; nothing was run", command.id);
        let fact = ("command_id", (&*command.id).into_bound_py_any(py)?);
        return Err(error::with(py, "CommandIdReusedError", &entity.key, &message, &[fact]));
    }
    if let Some(rejection) = &found.rejection {
        return Ok(Some((Err(rejected(py, rejection)), ticket)));
    }
    let revision = found.revision;
    let state = match &found.reply {
        _ if revision == live.revision => live.state.bind(py).clone(),
        Some(reply) => reply.bind(py).clone(),
        None => replay::state_at(py, journal, entity, live, revision)?,
    };
    Ok(Some((PyTuple::new(py, [state, revision.into_bound_py_any(py)?]), ticket)))
}

/// What the store remembers of an entity's commands.
fn recall(py: Python<'_>, journal: &dyn Journal, entity: &Entity, now: u64) -> PyResult<Memory> {
    let retention = entity.kind.retention;
    let mut memory = Memory::default();
    let read = journal.read_commands(&entity.key, oldest(now, retention), &mut |stored| {
        let rejection = stored.rejection.map(|rejection| {
            Box::new(Rejection {
                name: rejection.name.to_owned(),
                version: rejection.version,
                payload: rejection.payload.to_vec(),
            })
        });
        let command = Remembered {
            fingerprint: stored.fingerprint,
            revision: stored.revision,
            time: stored.time,
            rejection,
            reply: None,
            ticket: 0,
            is_alone: false,
        };
        if memory.recall(stored.id, command, retention) { Read::More } else { Read::Enough }
    });
    read.map_err(|failure| error::storage(py, &failure))?;
    Ok(memory)
}

/// Remembers how a command ended that was just appended.
pub fn remember(
    py: Python<'_>,
    entity: &Entity,
    live: &mut Live,
    command: &Identified,
    rejection: Option<Rejection>,
    is_alone: bool,
) {
    let remembered = Remembered {
        fingerprint: command.fingerprint,
        revision: live.revision,
        time: entity.kind.house.clock.wall_nanos_at_tick(),
        reply: rejection.is_none().then(|| live.state.clone_ref(py)),
        rejection: rejection.map(Box::new),
        ticket: live.last_ticket,
        is_alone,
    };
    live.commands.get_or_insert_default().remember(Arc::clone(&command.id), remembered, entity.kind.retention);
}

fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("ego._rejections")
}

/// The rejection as it is stored, where the exception is one.
///
/// # Errors
/// `CodecError`, `ConfigError`.
pub fn rejection(py: Python<'_>, failure: &PyErr) -> PyResult<Option<Rejection>> {
    let module = module(py)?;
    if !failure.value(py).is_instance(&module.getattr("Rejection")?)? {
        return Ok(None);
    }
    let stored = module.getattr("encode_rejection")?.call1((failure.value(py),))?;
    let (name, version, payload) = stored.extract::<(String, u32, Vec<u8>)>()?;
    Ok(Some(Rejection { name, version, payload }))
}

fn rejected(py: Python<'_>, stored: &Rejection) -> PyErr {
    let made = module(py).and_then(|module| {
        module.getattr("decode_rejection")?.call1((&stored.name, stored.version, PyBytes::new(py, &stored.payload)))
    });
    made.map_or_else(|failure| failure, PyErr::from_value)
}
