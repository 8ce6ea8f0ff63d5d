//! An engine: its kinds, its live entities, and one run between start and stop.

use crate::context::{self, Tell};
use crate::entity::{Entity, House, Running};
use crate::kind::{Kind, KindSpec};
use crate::pending::{self, Then, Waiting};
use crate::run::{Callbacks, Lane, Run};
use crate::{error, feed, residents, task};
use ego_answer::answer::{Answer, Phase};
use ego_answer::cell::{GilCell, GilValue};
use ego_answer::wake::{Bell, Home};
use ego_core::entities::residents::{Marks, Residents};
use ego_core::io::Clock;
use hashbrown::{HashMap, HashTable};
use pyo3::exceptions::{PyIndexError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, intern};
use std::collections::VecDeque;
use std::sync::Arc;

/// Whose commands are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nobody's.
    #[default]
    Stopped,
    /// Everybody's.
    Open,
    /// Those of handlers.
    Closing,
}

/// An engine as its runs, its callbacks and its references share it. The collector sees it; Python code does not.
#[pyclass(frozen, name = "SharedEngine", module = "ego._native")]
pub struct Engine {
    pub name: String,
    pub mailbox_capacity: usize,
    pub mode: GilValue<Mode>,
    pub house: Arc<House>,
    kinds: GilCell<Vec<Arc<Kind>>>,
    entities: GilCell<HashTable<Arc<Entity>>>,
    pub residents: GilCell<Residents<Arc<Entity>>>,
    pub run: GilCell<Option<Arc<Run>>>,
    /// The entities whose turn is held over rounds of the loop, for an `async def` handler or by `held`, by address.
    pub active: GilCell<HashMap<usize, Arc<Entity>>>,
    /// The entities for whose turn somebody waits, by address. One that nobody waits for any more may be among them.
    waited_for: GilCell<HashMap<usize, Arc<Entity>>>,
    pub outgoing: GilCell<VecDeque<Tell>>,
    pub timer: GilCell<Option<Py<PyAny>>>,
    waiters: GilCell<Vec<Answer>>,
}

impl Engine {
    /// The present run.
    pub fn running(&self, py: Python<'_>) -> PyResult<Arc<Run>> {
        let run = self.run.borrow(py).clone();
        run.ok_or_else(|| self.not_started(py))
    }

    #[cold]
    pub fn not_started(&self, py: Python<'_>) -> PyErr {
        error::not_started(py, &format!("engine {:?} is not started", self.name))
    }

    /// Refuses what comes from outside while the engine stops.
    pub fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        if self.mode.get(py) == Mode::Open || (self.mode.get(py) == Mode::Closing && context::is_inside(py)?) {
            return Ok(());
        }
        Err(error::not_started(py, &format!("engine {:?} is stopping and takes no more commands", self.name)))
    }

    /// The live entity in the place of one that the engine may not know of: it was never used, or has left memory, or
    /// was dropped by a stop.
    pub fn current(&self, py: Python<'_>, entity: &Arc<Entity>) -> Arc<Entity> {
        if !entity.away.get(py) {
            return Arc::clone(entity);
        }
        // The kind may read more payloads since the last start.
        let kind = self.kinds.borrow(py).get(entity.kind.number).cloned();
        let kind = kind.as_ref().unwrap_or(&entity.kind);
        let fits = Arc::ptr_eq(kind, &entity.kind) && !entity.slot.borrow(py).is_taken();
        let made = || if fits { Arc::clone(entity) } else { Arc::new(Entity::new(Arc::clone(kind), &entity.key.id)) };
        self.find(py, kind, &entity.key.id).unwrap_or_else(|| self.take_in(py, made()))
    }

    pub fn find(&self, py: Python<'_>, kind: &Arc<Kind>, id: &str) -> Option<Arc<Entity>> {
        let hash = ego_core::entities::shard::entity_hash(id);
        let same = |held: &Arc<Entity>| Arc::ptr_eq(&held.kind, kind) && &*held.key.id == id;
        self.entities.borrow(py).find(hash, same).map(Arc::clone)
    }

    /// Knows of an entity from now on.
    pub fn take_in(&self, py: Python<'_>, entity: Arc<Entity>) -> Arc<Entity> {
        entity.away.set(py, false);
        let hash = entity.key.hash();
        self.entities.borrow_mut(py).insert_unique(hash, Arc::clone(&entity), |held| held.key.hash());
        entity
    }

    /// Knows no more of an entity that is not in memory and not declared.
    pub fn let_go(&self, py: Python<'_>, entity: &Arc<Entity>) {
        if entity.is_resident(py) || !entity.declared(py).is_none() {
            return;
        }
        let mut entities = self.entities.borrow_mut(py);
        if let Ok(held) = entities.find_entry(entity.key.hash(), |held| Arc::ptr_eq(held, entity)) {
            let _ = held.remove();
            entity.away.set(py, true);
            // It may be back after the next start, when nobody knows of its marks.
            residents::unwatch(self, py, entity);
        }
        if entities.capacity() > 1024 && entities.len() < entities.capacity() / 8 {
            let room = entities.len() * 2;
            entities.shrink_to(room, |held| held.key.hash());
        }
    }

    pub fn kind(&self, py: Python<'_>, number: usize) -> PyResult<Arc<Kind>> {
        let kind = self.kinds.borrow(py).get(number).cloned();
        kind.ok_or_else(|| PyIndexError::new_err("no such kind"))
    }

    /// The kind of that name.
    pub fn kind_named(&self, py: Python<'_>, name: &str) -> Option<Arc<Kind>> {
        self.kinds.borrow(py).iter().find(|kind| *kind.name == *name).cloned()
    }

    /// An `async def` handler takes its entity's turn over.
    pub fn begin(&self, py: Python<'_>, entity: &Arc<Entity>, running: Running) {
        let before = entity.running.borrow_mut(py).replace(Box::new(running));
        drop(before);
        self.active.borrow_mut(py).insert(entity.address(), Arc::clone(entity));
    }

    /// An `async def` handler is done; its turn is the caller's now.
    pub fn end(&self, py: Python<'_>, entity: &Arc<Entity>) -> Option<Box<Running>> {
        let running = entity.running.borrow_mut(py).take();
        self.active.borrow_mut(py).remove(&entity.address());
        running
    }

    /// Somebody waits for an entity's turn.
    pub fn wait_for(&self, py: Python<'_>, entity: &Arc<Entity>) {
        let mut waited_for = self.waited_for.borrow_mut(py);
        if waited_for.len() as u64 > 2 * self.house.queued.get(py) + 64 {
            // Who gave up has left them there.
            waited_for.retain(|_, entity| !entity.slot.borrow(py).mailbox().is_empty());
        }
        waited_for.entry(entity.address()).or_insert_with(|| Arc::clone(entity));
    }

    /// Nobody does any more.
    pub fn wait_no_more(&self, py: Python<'_>, entity: &Arc<Entity>) {
        let gone = self.waited_for.borrow_mut(py).remove(&entity.address());
        drop(gone);
    }

    /// Shows whoever waits for a turn.
    pub fn each_waiting(&self, py: Python<'_>, mut look: impl FnMut(&Arc<Entity>, &Answer)) {
        for entity in self.waited_for.borrow(py).values() {
            entity.slot.borrow(py).mailbox().iter().for_each(|message| look(entity, &message.answer));
        }
    }

    /// Along who waits for whose answer, from one entity to another, both included.
    pub fn way(&self, py: Python<'_>, from: &Arc<Entity>, to: &Arc<Entity>) -> Option<Vec<Arc<Entity>>> {
        let way = self.house.waits.borrow(py).way(from.address(), to.address())?;
        let active = self.active.borrow(py);
        let named = |address: &usize| [from, to].into_iter().find(|held| held.address() == *address);
        way.iter().map(|address| named(address).or_else(|| active.get(address)).cloned()).collect()
    }

    fn is_drained(&self, py: Python<'_>) -> bool {
        let run = self.run.borrow(py);
        let is_idle = |run: &Arc<Run>| run.count_waiting(py) == 0 && run.visitors.get(py) == 0 && run.notes.is_idle(py);
        run.as_ref().is_none_or(is_idle)
            && self.active.borrow(py).is_empty()
            && self.outgoing.borrow(py).is_empty()
            && self.house.queued.get(py) == 0
    }

    pub fn check_drained(&self, py: Python<'_>) -> PyResult<()> {
        if self.waiters.borrow(py).is_empty() || !self.is_drained(py) {
            return Ok(());
        }
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut(py));
        for waiter in waiters {
            waiter.prepare(py, Ok(py.None().into_bound(py)));
            waiter.show(py, false)?;
        }
        Ok(())
    }

    /// Answers everybody who still waits, and forgets every entity.
    fn abandon(&self, py: Python<'_>, run: &Run) -> PyResult<()> {
        let mut result = Ok(());
        let waiting = run.lanes().flat_map(|lane| std::mem::take(&mut *lane.waiting.borrow_mut(py)));
        for Waiting { entity, answer, then, .. } in waiting {
            if matches!(then, Then::Show { .. }) {
                result = result.and(pending::give_up(py, &entity, &answer, false));
            }
        }
        drop(std::mem::take(&mut *self.outgoing.borrow_mut(py)));
        drop(std::mem::take(&mut *self.waited_for.borrow_mut(py)));
        let active = std::mem::take(&mut *self.active.borrow_mut(py));
        for entity in active.into_values() {
            let Some(running) = self.end(py, &entity) else { continue };
            result = result.and(pending::give_up(py, &entity, &running.answer, false));
            drop(running.scope.get().close(py));
            let awaitable = running.awaitable.bind(py);
            let stopped = if running.started {
                awaitable.call_method0(intern!(py, "cancel")).map(drop)
            } else {
                task::discard(awaitable)
            };
            result = result.and(stopped);
        }
        let entities = std::mem::take(&mut *self.entities.borrow_mut(py));
        drop(self.watch_nobody(py));
        for entity in entities {
            entity.away.set(py, true);
            entity.watched.set(py, false);
            entity.marks.set(py, Marks::default());
            entity.forget_declaration(py);
            let answers: Vec<_> =
                entity.slot.borrow(py).mailbox().iter().map(|message| message.answer.clone_ref(py)).collect();
            for answer in answers {
                result = result.and(pending::give_up(py, &entity, &answer, false));
                entity.withdraw(py, answer.held());
            }
            entity.forget(py, entity.generation(py));
        }
        result
    }
}

impl Engine {
    #[must_use]
    pub fn new(name: String, mailbox_capacity: usize, resident_limit: Option<usize>, clock: Clock) -> Self {
        let residents = Residents::new(resident_limit, clock.monotonic_nanos());
        Self {
            name,
            mailbox_capacity,
            mode: GilValue::default(),
            house: Arc::new(House::new(clock)),
            kinds: GilCell::default(),
            entities: GilCell::default(),
            residents: GilCell::new(residents),
            run: GilCell::default(),
            active: GilCell::default(),
            waited_for: GilCell::default(),
            outgoing: GilCell::default(),
            timer: GilCell::default(),
            waiters: GilCell::default(),
        }
    }

    /// Takes a kind in and gives its number; with a number, in the place of the kind that has it, before a start.
    pub fn register(&self, py: Python<'_>, spec: &KindSpec, number: Option<usize>) -> usize {
        let mut kinds = self.kinds.borrow_mut(py);
        let number = number.unwrap_or(kinds.len());
        let kind = Arc::new(spec.0.numbered(py, number, &self.house));
        let before = match kinds.get_mut(number) {
            Some(held) => Some(std::mem::replace(held, kind)),
            None => {
                kinds.push(kind);
                None
            }
        };
        drop(kinds);
        drop(before);
        number
    }

    /// Takes commands from now on, on the running loop.
    ///
    /// # Errors
    /// It is started already; what the loop raises.
    pub fn start(this: &Bound<'_, Self>, events: Lane, states: Option<Lane>, event_loop: Py<PyAny>) -> PyResult<()> {
        let py = this.py();
        let inner = this.get();
        if inner.run.borrow(py).is_some() {
            return Err(PyRuntimeError::new_err(format!("engine {:?} is started already", inner.name)));
        }
        let (bell, callbacks) = (Bell::new()?, Callbacks::new(this)?);
        let run = Run::new(events, states, Home::new(event_loop), callbacks, bell);
        run.home.add_reader(py, &run.bell, run.callbacks.drain.bind(py))?;
        for lane in run.lanes() {
            lane.journal.on_settled(Arc::clone(&run.wake));
            lane.loader.on_ready(Arc::clone(&run.wake));
        }
        *inner.run.borrow_mut(py) = Some(Arc::new(run));
        inner.mode.set(py, Mode::Open);
        Ok(())
    }

    /// Takes commands from handlers alone from now on.
    pub fn refuse_outside(&self, py: Python<'_>) {
        if self.mode.get(py) == Mode::Open {
            self.mode.set(py, Mode::Closing);
        }
    }

    /// An awaitable that is done once no command is queued, running or waiting for the disk.
    ///
    /// # Errors
    /// `EngineNotStartedError`.
    pub fn drained(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let run = self.running(py)?;
        pending::kick(py, &run);
        run.notes.kick(py);
        let answer = Answer::pending(py, &run.home.event_loop, Phase::Writing, 0)?;
        self.waiters.borrow_mut(py).push(answer.clone_ref(py));
        self.check_drained(py)?;
        Ok(answer.into_any())
    }

    /// Lets go of the loop and of every entity; tells how many commands had no end.
    ///
    /// # Errors
    /// It is called from inside a handler; what the loop raises.
    pub fn finish(&self, py: Python<'_>) -> PyResult<Unfinished> {
        let shown = |waiting: &&Waiting| matches!(waiting.then, Then::Show { .. });
        let count = |lane: &Lane| lane.waiting.borrow(py).iter().filter(shown).count();
        let visitors = self.run.borrow(py).as_ref().map_or(0, |run| run.visitors.get(py) as usize);
        let unfinished = Unfinished {
            queued: self.house.queued.get(py) + self.outgoing.borrow(py).len() as u64,
            running: self.count_running(py) + visitors,
            waiting: self.run.borrow(py).as_ref().map_or(0, |run| run.lanes().map(count).sum()),
        };
        let taken = match self.run.try_borrow_mut(py) {
            Some(mut run) => run.take(),
            None => return Err(PyRuntimeError::new_err("an engine cannot be stopped from inside a handler")),
        };
        let Some(run) = taken else { return Ok(unfinished) };
        run.is_over.set(py, true);
        self.mode.set(py, Mode::Stopped);
        let abandoned = self.abandon(py, &run);
        let unnoted = run.notes.end(py);
        let abandoned = feed::end(py, &run).and(unnoted).and(abandoned);
        let timer = self.timer.borrow_mut(py).take();
        if let Some(timer) = timer {
            timer.call_method0(py, "cancel")?;
        }
        run.home.remove_reader(py, &run.bell)?;
        self.check_drained(py)?;
        abandoned?;
        Ok(unfinished)
    }

    /// Looks at the clock that was moved by hand.
    ///
    /// # Errors
    /// What a waiting task may not swallow.
    pub fn look(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let run = this.get().run.borrow(py).clone();
        run.map_or(Ok(()), |run| pending::expire(this, &run, 0, false))
    }

    /// How many `async def` handlers have a turn.
    pub fn count_running(&self, py: Python<'_>) -> usize {
        self.active.borrow(py).values().filter(|entity| entity.running.borrow(py).is_some()).count()
    }
}

/// Commands that had no end when an engine stopped.
#[derive(Debug, Clone, Copy)]
pub struct Unfinished {
    pub queued: u64,
    pub running: usize,
    pub waiting: usize,
}

#[pymethods]
impl Engine {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for kind in self.kinds.in_traverse().iter().flat_map(|kinds| kinds.iter()) {
            kind.traverse(visit)?;
        }
        for entity in self.entities.in_traverse().iter().flat_map(|entities| entities.iter()) {
            entity.traverse(visit)?;
        }
        if let Some(outgoing) = self.outgoing.in_traverse() {
            visit_tells(&*outgoing, visit)?;
        }
        if let Some(timer) = self.timer.in_traverse() {
            visit.call(timer.as_ref())?;
        }
        for waiter in self.waiters.in_traverse().iter().flat_map(|waiters| waiters.iter()) {
            visit.call(waiter.held())?;
        }
        match self.run.in_traverse().as_deref() {
            // A second owner is on the stack right now, and keeps what it holds alive.
            Some(Some(run)) if Arc::strong_count(run) == 1 => run.traverse(visit),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            drop(self.run.try_borrow_mut(py).and_then(|mut run| run.take()));
            drop(std::mem::take(&mut *self.outgoing.borrow_mut(py)));
            drop(std::mem::take(&mut *self.waiters.borrow_mut(py)));
            let timer = self.timer.borrow_mut(py).take();
            drop(timer);
            drop(std::mem::take(&mut *self.waited_for.borrow_mut(py)));
            let active = std::mem::take(&mut *self.active.borrow_mut(py));
            for entity in active.values() {
                let running = entity.running.borrow_mut(py).take();
                drop(running);
            }
            let entities = std::mem::take(&mut *self.entities.borrow_mut(py));
            drop(self.watch_nobody(py));
            for entity in &entities {
                entity.forget(py, entity.generation(py));
            }
            let kinds = std::mem::take(&mut *self.kinds.borrow_mut(py));
            drop((entities, kinds));
        });
    }
}

fn visit_tells<'a>(tells: impl IntoIterator<Item = &'a Tell>, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
    tells.into_iter().try_for_each(|tell| tell.traverse(visit))
}
