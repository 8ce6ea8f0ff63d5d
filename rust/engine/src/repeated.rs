//! Commands with an id: what is remembered of them, and what a repeated one is answered.

use crate::entity::{Entity, Live};
use crate::error;
use crate::held::Lack;
use crate::replay::Replay;
use crate::terms::Identified;
use crate::turn::{Fate, fate};
use ego_core::StoreError;
use ego_core::entities::commands::{Commands, Rejection, Remembered};
use ego_core::journal::{Journal, Ticket, Wait};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::Arc;

/// The commands that an entity remembers.
#[derive(Debug, Default)]
pub struct Memory {
    pub commands: Commands<Py<PyAny>>,
    /// The last older state that was read back, and its revision.
    older: Option<(u64, Py<PyAny>)>,
}

impl Memory {
    pub fn new(commands: Commands<Py<PyAny>>) -> Self {
        Self { commands, older: None }
    }

    /// Keeps an older state that was read back.
    pub fn keep(&mut self, older: Replay) {
        self.older = Some((older.until, older.live.state));
    }

    /// The states that it keeps.
    pub fn replies(&self) -> impl Iterator<Item = &Py<PyAny>> {
        self.commands.replies().chain(self.older.iter().map(|(_, state)| state))
    }
}

/// What is known of a command with an id.
pub enum Known<'py> {
    /// Nothing: it is new.
    Nothing,
    /// What it was answered before, or the rejection that it was refused with, and the unit that recorded it.
    Answer(PyResult<Bound<'py, PyTuple>>, Ticket),
    /// That cannot be told without waiting.
    Lacking(Lack),
}

/// Looks for what a command with an id was answered before.
///
/// # Errors
/// `CommandIdReusedError`: the id belongs to another command; what reading the store raises.
pub fn known<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Arc<Entity>,
    live: &mut Live,
    command: &Identified,
) -> PyResult<Known<'py>> {
    let (now, retention) = (entity.kind.house.clock.wall_nanos_at_tick(), entity.kind.retention);
    if live.commands.is_none() {
        match Commands::read(journal, &entity.key, now, retention, Wait::Never) {
            Ok(commands) => live.commands = Some(Box::new(Memory::new(commands))),
            Err(StoreError::WouldWait) => return Ok(Known::Lacking(Lack::Commands)),
            Err(failure) => return Err(error::storage(py, &failure)),
        }
    }
    let memory = live.commands.get_or_insert_default();
    memory.commands.settle(journal.settled(), |reply| reply.drop_ref(py));
    let found = memory.commands.find(&command.id, now, retention);
    let Some(found) = found.filter(|found| !matches!(fate(journal, found.ticket), Fate::Lost(_))) else {
        return Ok(Known::Nothing);
    };
    let ticket = found.ticket;
    if found.fingerprint != command.fingerprint {
        let message = format!("command id {:?} belongs to another command; nothing was run", command.id);
        let fact = ("command_id", (&*command.id).into_bound_py_any(py)?);
        return Err(error::with(py, "CommandIdReusedError", &entity.key, &message, &[fact]));
    }
    if let Some(rejection) = &found.rejection {
        return Ok(Known::Answer(Err(rejected(py, rejection)), ticket));
    }
    let revision = found.revision;
    let state = match (&found.reply, &memory.older) {
        _ if revision == live.revision => live.state.bind(py).clone(),
        (Some(reply), _) => reply.bind(py).clone(),
        (None, Some((kept, state))) if *kept == revision => state.bind(py).clone(),
        (None, _) => {
            let mut older = Replay::older(py, entity, live, revision)?;
            if !older.read_now(py, journal, entity)? {
                return Ok(Known::Lacking(Lack::Older(older)));
            }
            older.live.state.into_bound(py)
        }
    };
    Ok(Known::Answer(PyTuple::new(py, [state, revision.into_bound_py_any(py)?]), ticket))
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
    let memory = live.commands.get_or_insert_default();
    memory.commands.remember(Arc::clone(&command.id), remembered, entity.kind.retention);
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
