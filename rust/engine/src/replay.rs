//! Brings an entity into memory from what is durable of it: its events, or its state, are copied out of the journal in
//! chunks, and each chunk is decoded and folded.
//!
//! The caller holds the entity's turn. Nothing here waits, and no lock is held while Python runs.

use crate::context::Frame;
use crate::entity::{Entity, Live};
use crate::error;
use crate::kind::Decoder;
use crate::payload::Payload;
use crate::unreadable::{Stored, ours};
use ego_core::StoreError;
use ego_core::history::{self, Chunk, StoredType, Wanted};
use ego_core::io::Slice;
use ego_core::journal::{Journal, Read, Wait};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::Arc;

/// An entity on its way into memory, or to an older revision.
#[derive(Debug)]
pub struct Replay {
    /// As far as it has come.
    pub live: Live,
    pub until: u64,
}

impl Replay {
    /// An entity before its first event, to be read to the end.
    pub fn begin(py: Python<'_>, entity: &Arc<Entity>) -> PyResult<Self> {
        Frame::new(entity, 0, None).run(|| {
            let id = PyString::new(py, &entity.key.id);
            let behavior = entity.kind.create.call(py, [&id, &entity.declared(py)])?;
            Self::of(py, entity, &behavior, u64::MAX)
        })
    }

    /// A live entity before its first event, to be read up to a revision.
    pub fn older(py: Python<'_>, entity: &Arc<Entity>, live: &Live, revision: u64) -> PyResult<Self> {
        Frame::new(entity, revision, None).run(|| Self::of(py, entity, live.behavior.bind(py), revision))
    }

    fn of(py: Python<'_>, entity: &Entity, behavior: &Bound<'_, PyAny>, until: u64) -> PyResult<Self> {
        let state = entity.kind.initial_state.call(py, [behavior])?;
        entity.kind.check_state(&state, &entity.key, "initial_state")?;
        let (behavior, state) = (behavior.clone().unbind(), state.unbind());
        Ok(Self { live: Live { behavior, state, revision: 0, last_ticket: 0, commands: None, shown: None }, until })
    }

    /// What is still to be read.
    pub fn wanted(&self, entity: &Entity) -> Wanted {
        if entity.kind.is_durable_state {
            Wanted::State { at: self.until }
        } else {
            Wanted::Events { from: self.live.revision + 1 }
        }
    }

    /// Whether nothing more is wanted.
    pub fn is_done(&self) -> bool {
        self.live.revision >= self.until
    }

    /// Reads and folds what can be had without waiting, for a slice of time at most; whether that was all.
    pub fn read_now(&mut self, py: Python<'_>, journal: &dyn Journal, entity: &Arc<Entity>) -> PyResult<bool> {
        if self.is_done() {
            return Ok(true);
        }
        let (mut slice, mut folded) = (Slice::new(), Ok(true));
        let read = history::read(journal, &entity.key, self.wanted(entity), Wait::Never, &mut |chunk| {
            folded = self.fold(py, entity, chunk, &mut slice);
            if matches!(folded, Ok(true)) && !self.is_done() { Read::More } else { Read::Enough }
        });
        match (folded, read) {
            (Ok(true), Err(StoreError::WouldWait)) => Ok(false),
            (Ok(true), read) => self.end(py, entity, read).map(|()| true),
            (folded, _) => folded,
        }
    }

    /// Moves on by what a chunk holds behind the revision reached, for a slice of time; whether that was all.
    pub fn fold(&mut self, py: Python<'_>, entity: &Arc<Entity>, chunk: &Chunk, slice: &mut Slice) -> PyResult<bool> {
        let (reached, until) = (self.live.revision, self.until);
        Frame::new(entity, reached, None).run(|| {
            let (mut last, mut bytes): (Option<(&StoredType, &Decoder)>, _) = (None, Payload::default());
            let wanted = chunk.events().skip_while(|event| event.revision <= reached);
            for event in wanted.take_while(|event| event.revision <= until) {
                if slice.is_over() {
                    return Ok(false);
                }
                let decoder = match last {
                    // Events of one type tend to follow each other.
                    Some((stored, decoder)) if std::ptr::eq(stored, event.stored) => decoder,
                    _ => decoder(py, entity, &event.stored.name, event.stored.version, event.revision)?,
                };
                last = Some((event.stored, decoder));
                let decoded = decoder.decode.call(py, [bytes.of(py, event.payload)]).map_err(|failure| {
                    let StoredType { name, version, .. } = event.stored;
                    stored(entity, name, *version, event.revision).undecoded(py, failure)
                })?;
                let state = if entity.kind.is_durable_state {
                    decoded
                } else {
                    replay(py, entity, &self.live, &decoded, event.revision)?
                };
                std::mem::replace(&mut self.live.state, state.unbind()).drop_ref(py);
                self.live.revision = event.revision;
            }
            Ok(true)
        })
    }

    /// The journal has no more to give; `read` is what it said.
    pub fn end(&self, py: Python<'_>, entity: &Entity, read: Result<u64, StoreError>) -> PyResult<()> {
        let last = read.map_err(|failure| error::storage(py, &failure))?;
        if self.live.revision > 0 || last == 0 {
            return Ok(());
        }
        let message = if entity.kind.is_durable_state {
            "the store holds events of this entity, and its behavior is one of durable states"
        } else {
            "the store holds durable states of this entity, and its behavior is an event-sourced one"
        };
        let fact = ("revision", last.into_bound_py_any(py)?);
        Err(error::with(py, "ReplayError", &entity.key, message, &[fact]))
    }
}

/// What reads a stored event or state.
///
/// # Errors
/// `UnknownEventError`.
fn decoder<'a>(py: Python<'_>, entity: &'a Entity, name: &str, version: u32, revision: u64) -> PyResult<&'a Decoder> {
    let decoder = entity.kind.decoder(name, version);
    decoder.ok_or_else(|| stored(entity, name, version, revision).unknown(py, true))
}

fn stored<'a>(entity: &'a Entity, name: &'a str, version: u32, revision: u64) -> Stored<'a> {
    Stored { entity: &entity.key, is_state: entity.kind.is_durable_state, name, version, revision }
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
