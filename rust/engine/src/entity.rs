//! One live entity as the seam sees it: its slot, and who waits for whom.

use crate::context::Context;
use crate::kind::Kind;
use crate::repeated::Memory;
use crate::terms::Terms;
use ego_answer::answer::{Answer, Link};
use ego_answer::cell::{GilCell, GilValue};
use ego_answer::future::Future;
use ego_core::entities::residents::Marks;
use ego_core::entities::slot::{Entry, Slot};
use ego_core::entities::waits::Waits;
use ego_core::io::Clock;
use ego_core::journal::{EntityKey, Ticket};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;

/// What is in memory of an entity.
#[derive(Debug)]
pub struct Live {
    pub behavior: Py<PyAny>,
    pub state: Py<PyAny>,
    pub revision: u64,
    /// The last accepted unit; 0 where it is known to be durable.
    pub last_ticket: Ticket,
    /// The commands that it remembers; none where nobody has asked since it came into memory.
    pub commands: Option<Box<Memory>>,
    /// What is shown of it, where its handler made that: `(state, revision)`.
    pub shown: Option<Py<PyTuple>>,
}

impl Live {
    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.behavior)?;
        visit.call(&self.state)?;
        visit.call(&self.shown)?;
        self.commands.iter().flat_map(|commands| commands.replies()).try_for_each(|reply| visit.call(reply))
    }
}

/// What a sender wants.
#[derive(Debug)]
pub enum Wants {
    Command(Py<PyAny>, Option<Arc<Terms>>),
    State,
}

/// What waits in a mailbox.
#[derive(Debug)]
pub struct Message {
    pub wants: Wants,
    pub answer: Answer,
    /// The sender's context.
    pub context: Py<PyAny>,
}

/// What `Engine.entity` says of an entity.
#[derive(Debug)]
struct Declared {
    /// The object that it is made of.
    behavior: Py<PyAny>,
    /// Nanoseconds without a command after which it leaves memory; none for what its kind says.
    passivate_after: Option<u64>,
}

/// An `async def` handler that has the turn.
#[derive(Debug)]
pub struct Running {
    pub answer: Answer,
    /// What the handler returned, until it is started; then its task.
    pub awaitable: Py<PyAny>,
    pub started: bool,
    /// The sender's context, with the handler's own in it.
    pub context: Py<PyAny>,
    pub scope: Py<Context>,
    pub terms: Option<Arc<Terms>>,
    pub generation: u32,
}

/// A command on its way: which entity it is for, and in whose `async def` handler it was sent.
#[derive(Debug)]
pub struct Sent {
    pub to: Arc<Entity>,
    pub by: Option<Arc<Entity>>,
}

impl Link for Sent {
    fn withdraw(&self, py: Python<'_>, answer: &Py<Future>) {
        self.to.withdraw(py, answer);
    }

    fn unlink(&self, py: Python<'_>) {
        if let Some(sender) = &self.by {
            sender.kind.house.waits.borrow_mut(py).waits_no_more(sender.address(), self.to.address());
        }
    }
}

/// What all entities of one engine share: its clock, its counters, and which `async def` handler waits for whose answer.
#[derive(Debug, Default)]
pub struct House {
    pub clock: Clock,
    pub accepted: GilValue<u64>,
    pub ok: GilValue<u64>,
    pub rejected: GilValue<u64>,
    pub failed: GilValue<u64>,
    pub queued: GilValue<u64>,
    /// Entities in memory.
    pub resident: GilValue<u64>,
    /// Entities that left memory because they were idle or too many.
    pub passivated: GilValue<u64>,
    /// By address.
    pub waits: GilCell<Waits<usize>>,
}

impl House {
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }
}

#[derive(Debug)]
pub struct Entity {
    pub key: EntityKey,
    pub kind: Arc<Kind>,
    pub slot: GilCell<Slot<Live, Message>>,
    pub running: GilCell<Option<Box<Running>>>,
    /// What `Engine.entity` said of it.
    declared: GilCell<Option<Box<Declared>>>,
    /// When it was used last, where it is watched.
    pub last_used: GilValue<u64>,
    /// Where it is noted, where it is watched.
    pub marks: GilValue<Marks>,
    /// Whether each use is noted, since it may have to leave memory.
    pub watched: GilValue<bool>,
    /// Whether it is among the entities in memory that are counted.
    counted: GilValue<bool>,
    /// Whether the engine knows of it. One that it does not know of is nothing but a name.
    pub away: GilValue<bool>,
}

impl Entity {
    /// An entity that no engine knows of yet.
    pub fn new(kind: Arc<Kind>, id: &str) -> Self {
        Self {
            key: EntityKey::new(Arc::clone(&kind.name), Arc::from(id)),
            kind,
            slot: GilCell::default(),
            running: GilCell::default(),
            declared: GilCell::default(),
            last_used: GilValue::default(),
            marks: GilValue::default(),
            watched: GilValue::default(),
            counted: GilValue::default(),
            away: GilValue::new(true),
        }
    }

    /// Names it while somebody holds it.
    pub fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Nanoseconds without a command after which it leaves memory; none where it stays.
    pub fn passivate_after(&self, py: Python<'_>) -> Option<u64> {
        let declared = self.declared.borrow(py);
        declared.as_ref().and_then(|declared| declared.passivate_after).or(self.kind.passivate_after)
    }

    /// Counts it among the entities in memory, or does not.
    pub fn count(&self, py: Python<'_>, is_resident: bool) {
        if self.counted.get(py) != is_resident {
            self.counted.set(py, is_resident);
            let resident = &self.kind.house.resident;
            if is_resident { resident.add(py, 1) } else { resident.sub(py, 1) }
        }
    }

    /// The object that declared it, or Python's `None`.
    pub fn declared<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &*self.declared.borrow(py) {
            Some(declared) => declared.behavior.bind(py).clone(),
            None => py.None().into_bound(py),
        }
    }

    /// Declares it, unless it is declared already or somebody has its turn.
    pub fn declare(&self, py: Python<'_>, behavior: &Bound<'_, PyAny>, passivate_after: Option<u64>) -> bool {
        let mut declared = self.declared.borrow_mut(py);
        let new = declared.is_none() && !self.slot.borrow(py).is_taken() && !self.is_resident(py);
        if new {
            *declared = Some(Box::new(Declared { behavior: behavior.clone().unbind(), passivate_after }));
        }
        new
    }

    /// Takes the declaration by that object back.
    pub fn undeclare(&self, behavior: &Bound<'_, PyAny>) {
        if self.declared(behavior.py()).is(behavior) {
            self.forget_declaration(behavior.py());
        }
    }

    /// Takes any declaration back.
    pub fn forget_declaration(&self, py: Python<'_>) {
        let declared = self.declared.borrow_mut(py).take();
        drop(declared);
    }

    /// Whether it is in memory.
    pub fn is_resident(&self, py: Python<'_>) -> bool {
        let slot = self.slot.borrow(py);
        slot.content().is_some() || slot.is_taken()
    }

    /// Forgets what is in memory, unless that has happened since `generation`.
    pub fn forget(&self, py: Python<'_>, generation: u32) {
        let forgotten = {
            let mut slot = self.slot.borrow_mut(py);
            if slot.generation() == generation { slot.reset() } else { return }
        };
        self.count(py, false);
        drop(forgotten);
    }

    /// A unit is not stored: forgets what counts on it. Nothing counts on the record of a command alone.
    pub fn lose(&self, py: Python<'_>, ticket: Ticket, generation: u32) {
        let record =
            self.slot.borrow_mut(py).content_mut().and_then(|live| live.commands.as_mut()?.commands.take_back(ticket));
        if record.is_none() {
            self.forget(py, generation);
        }
    }

    pub fn generation(&self, py: Python<'_>) -> u32 {
        self.slot.borrow(py).generation()
    }

    #[inline]
    pub fn enter(&self, py: Python<'_>) -> (Entry<Live>, u32) {
        let mut slot = self.slot.borrow_mut(py);
        (slot.enter(), slot.generation())
    }

    /// Puts back what was taken out and lets go of the turn, unless somebody waits for it.
    #[inline]
    pub fn put_and_pass_on(&self, py: Python<'_>, live: Live, generation: u32) -> Option<Message> {
        let (stale, next) = {
            let mut slot = self.slot.borrow_mut(py);
            (slot.put(live, generation), slot.next_or_leave())
        };
        drop(stale);
        next
    }

    /// For the holder of the turn: puts back what it took out.
    #[inline]
    pub fn put(&self, py: Python<'_>, live: Live, generation: u32) {
        let stale = self.slot.borrow_mut(py).put(live, generation);
        drop(stale);
    }

    /// Takes a message out of the mailbox; it will never run.
    pub fn withdraw(&self, py: Python<'_>, answer: &Py<Future>) -> bool {
        let withdrawn = self.slot.borrow_mut(py).withdraw(|message| message.answer.held().is(answer));
        if withdrawn.is_some() {
            self.kind.house.queued.sub(py, 1);
        }
        withdrawn.is_some()
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(slot) = self.slot.in_traverse() {
            if let Some(live) = slot.content() {
                live.traverse(visit)?;
            }
            for message in slot.mailbox().iter() {
                visit.call(message.answer.held())?;
                visit.call(&message.context)?;
                if let Wants::Command(command, _) = &message.wants {
                    visit.call(command)?;
                }
            }
        }
        if let Some(declared) = self.declared.in_traverse()
            && let Some(declared) = &*declared
        {
            visit.call(&declared.behavior)?;
        }
        if let Some(running) = self.running.in_traverse()
            && let Some(running) = &*running
        {
            visit.call(running.answer.held())?;
            visit.call(&running.awaitable)?;
            visit.call(&running.context)?;
            visit.call(&running.scope)?;
        }
        Ok(())
    }
}
