//! Turns that the engine holds over rounds of its loop: until what a command needs of its entity is in memory, or until
//! the entity's journal has room.
//!
//! The command stays in front of the mailbox meanwhile, and is late, cancelled and counted as every queued one is. What
//! is read comes from the store's loader and is folded here in slices, so the loop never waits for a disk or a long
//! history. An error of reading is the front command's alone: the next one reads again.

use crate::dispatch::{At, Ended};
use crate::engine::Engine;
use crate::entity::{Entity, Message};
use crate::pending;
use crate::repeated::Memory;
use crate::replay::Replay;
use crate::run::{Lane, Run};
use crate::{error, residents};
use ego_core::StoreError;
use ego_core::entities::commands::Commands;
use ego_core::history::Chunk;
use ego_core::io::Slice;
use ego_core::loader::{Load, Piece};
use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a turn lacks.
#[derive(Debug)]
pub enum Lack {
    /// Its entity, which was read so far.
    Entity(Replay),
    /// An older state of its entity, which was read so far.
    Older(Replay),
    /// The commands that its entity remembers.
    Commands,
    /// Room in its journal.
    Room,
}

/// A reading that a turn waits for.
#[derive(Debug)]
struct Loading {
    entity: Arc<Entity>,
    generation: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Replay {
        replay: Replay,
        is_older: bool,
        load: Load<Chunk>,
        /// What was taken and is not folded to its end.
        chunk: Option<Chunk>,
    },
    Commands(Load<Commands<Py<PyAny>>>),
}

/// The turns that are held for one store.
#[derive(Debug, Default)]
pub struct Held {
    loading: HashMap<u64, Loading>,
    /// Those who wait for room, in the order in which they came.
    stalled: VecDeque<Arc<Entity>>,
}

impl Held {
    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.loading.values().try_for_each(|loading| match &loading.what {
            What::Replay { replay, .. } => replay.live.traverse(visit),
            What::Commands(_) => Ok(()),
        })
    }
}

/// Goes on with what is held, as far as fits into a round of the loop.
pub fn go_on(engine: &Bound<'_, Engine>, run: &Arc<Run>) -> PyResult<()> {
    let py = engine.py();
    let mut result = Ok(());
    for lane in run.lanes() {
        let mut slice = Slice::new();
        while let Some(number) = lane.loader.next_ready() {
            let loading = lane.held.borrow_mut(py).loading.remove(&number);
            let Some(loading) = loading else { continue };
            let entity = Arc::clone(&loading.entity);
            let at = At { py, engine, run, entity: &entity, caller: None };
            result = result.and(at.advance(lane, loading, &mut slice));
            if slice.is_over_now() {
                run.bell.ring();
                break;
            }
        }
        let slice = Slice::new();
        while !lane.held.borrow(py).stalled.is_empty() && !lane.journal.is_congested() {
            if slice.is_over_now() {
                run.bell.ring();
                break;
            }
            let next = lane.held.borrow_mut(py).stalled.pop_front();
            let Some(entity) = next else { break };
            lane.is_stalled.set(py, false);
            result = result.and(At { py, engine, run, entity: &entity, caller: None }.let_go(None));
        }
        lane.is_stalled.set(py, !lane.held.borrow(py).stalled.is_empty());
    }
    result
}

impl At<'_, '_> {
    /// For the holder of a turn: leaves it to the engine until there is what the command lacks.
    pub fn hold(self, lack: Lack, message: Message) -> PyResult<()> {
        let Self { py, engine, run, entity, .. } = self;
        let inner = engine.get();
        if run.is_over.get(py) {
            return pending::give_up(py, entity, &message.answer, false);
        }
        entity.slot.borrow_mut(py).put_back(message);
        inner.house.queued.add(py, 1);
        inner.active.borrow_mut(py).insert(Arc::as_ptr(entity).addr(), Arc::clone(entity));
        inner.wait_for(py, entity);
        match self.ask_for(lack) {
            Ok(()) => Ok(()),
            Err(failure) => self.let_go(Some(error::storage(py, &failure))),
        }
    }

    fn ask_for(self, lack: Lack) -> Result<(), StoreError> {
        let Self { py, run, entity, .. } = self;
        let lane = run.lane(&entity.kind);
        let read = |replay: Replay, is_older: bool| {
            let load = lane.loader.history(&lane.journal, &entity.key, replay.wanted(entity))?;
            Ok((load.number(), What::Replay { replay, is_older, load, chunk: None }))
        };
        let (number, what) = match lack {
            Lack::Entity(replay) => read(replay, false)?,
            Lack::Older(replay) => read(replay, true)?,
            Lack::Commands => {
                let now = entity.kind.house.clock.wall_nanos_at_tick();
                let load = lane.loader.commands(&lane.journal, &entity.key, now, entity.kind.retention)?;
                (load.number(), What::Commands(load))
            }
            Lack::Room => {
                lane.held.borrow_mut(py).stalled.push_back(Arc::clone(entity));
                lane.is_stalled.set(py, true);
                pending::kick(py, run);
                return Ok(());
            }
        };
        let loading = Loading { entity: Arc::clone(entity), generation: entity.generation(py), what };
        lane.held.borrow_mut(py).loading.insert(number, loading);
        Ok(())
    }

    /// Takes what was read and folds it, for a slice of time.
    fn advance(self, lane: &Lane, mut loading: Loading, slice: &mut Slice) -> PyResult<()> {
        let Self { py, entity, .. } = self;
        let number = match &mut loading.what {
            What::Commands(load) => match load.take() {
                Some(Piece::Part(commands)) => {
                    self.change(loading.generation, |live| live.commands = Some(Box::new(Memory::new(commands))));
                    return self.let_go(None);
                }
                Some(Piece::End(ended)) => return self.let_go(ended.err().map(|failure| error::storage(py, &failure))),
                None => load.number(),
            },
            What::Replay { replay, is_older, load, chunk } => {
                let is_whole = loop {
                    let folded = match chunk.take() {
                        Some(held) => match replay.fold(py, entity, &held, slice) {
                            Ok(false) => {
                                *chunk = Some(held);
                                load.leave();
                                break Ok(false);
                            }
                            folded => folded,
                        },
                        None => Ok(true),
                    };
                    if folded.is_err() || replay.is_done() {
                        break folded;
                    }
                    match load.take() {
                        Some(Piece::Part(part)) => *chunk = Some(part),
                        Some(Piece::End(ended)) => break replay.end(py, entity, ended).map(|()| true),
                        None => break Ok(false),
                    }
                };
                match is_whole {
                    Err(failure) => return self.let_go(Some(failure)),
                    Ok(false) => load.number(),
                    Ok(true) => {
                        let (is_older, generation) = (*is_older, loading.generation);
                        let What::Replay { replay, .. } = loading.what else { return Ok(()) };
                        if is_older {
                            self.change(generation, |live| live.commands.get_or_insert_default().keep(replay));
                        } else {
                            entity.put(py, replay.live, generation);
                            let came = residents::came(self.engine, self.run, entity);
                            return self.let_go(None).and(came);
                        }
                        return self.let_go(None);
                    }
                }
            }
        };
        lane.held.borrow_mut(py).loading.insert(number, loading);
        Ok(())
    }

    /// Changes what is in memory of the entity.
    fn change(self, generation: u32, change: impl FnOnce(&mut crate::entity::Live)) {
        let live = self.entity.slot.borrow_mut(self.py).take();
        if let Some(mut live) = live {
            change(&mut live);
            self.entity.put(self.py, live, generation);
        }
    }

    /// Has the held turn go on, or its front command fail.
    fn let_go(self, failure: Option<PyErr>) -> PyResult<()> {
        let Self { py, engine, entity, .. } = self;
        let inner = engine.get();
        inner.active.borrow_mut(py).remove(&Arc::as_ptr(entity).addr());
        let Some(failure) = failure else { return self.pass_on() };
        let (first, ticket, generation) = {
            let mut slot = entity.slot.borrow_mut(py);
            let ticket = slot.content().map_or(0, |live| live.last_ticket);
            (slot.withdraw(|_| true), ticket, slot.generation())
        };
        let concluded = first.map_or(Ok(()), |first| {
            inner.house.queued.sub(py, 1);
            self.conclude(first.answer, Ended { ticket, generation, value: Err(failure), tells: Vec::new() }, false)
        });
        self.pass_on().and(concluded)
    }
}
