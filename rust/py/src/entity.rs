//! One live entity as the seam sees it: its slot, and who waits for whom.

use crate::context::Context;
use crate::kind::Kind;
use ego_answer::answer::{Answer, Link};
use ego_answer::cell::{GilCell, GilValue};
use ego_answer::future::Future;
use ego_core::entities::slot::{Entry, Slot};
use ego_core::journal::{EntityKey, Ticket};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;

/// What is in memory of an entity.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) behavior: Py<PyAny>,
    pub(crate) state: Py<PyAny>,
    pub(crate) revision: u64,
    /// The last accepted unit; 0 where it is known to be durable.
    pub(crate) last_ticket: Ticket,
}

/// What a sender wants.
#[derive(Debug)]
pub(crate) enum Wants {
    Command(Py<PyAny>),
    State,
}

/// What waits in a mailbox.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) wants: Wants,
    pub(crate) answer: Answer,
    /// The sender's context.
    pub(crate) context: Py<PyAny>,
}

/// An `async def` handler that has the turn.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) answer: Answer,
    /// What the handler returned, until it is started; then its task.
    pub(crate) awaitable: Py<PyAny>,
    pub(crate) started: bool,
    /// The sender's context, with the handler's own in it.
    pub(crate) context: Py<PyAny>,
    pub(crate) scope: Py<Context>,
    pub(crate) generation: u32,
}

/// A command on its way: which entity it is for, and in whose `async def` handler it was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) to: Arc<Entity>,
    pub(crate) by: Option<Arc<Entity>>,
}

impl Link for Sent {
    fn withdraw(&self, py: Python<'_>, answer: &Py<Future>) {
        self.to.withdraw(py, answer);
    }

    fn unlink(&self, py: Python<'_>) {
        if let Some(sender) = &self.by {
            sender.waits_no_more(py, &self.to);
        }
    }
}

/// Counters of one engine.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: GilValue<u64>,
    pub(crate) ok: GilValue<u64>,
    pub(crate) rejected: GilValue<u64>,
    pub(crate) failed: GilValue<u64>,
    pub(crate) queued: GilValue<u64>,
}

#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) key: EntityKey,
    pub(crate) kind: Arc<Kind>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) slot: GilCell<Slot<Live, Message>>,
    pub(crate) running: GilCell<Option<Box<Running>>>,
    /// The entities that this one's `async def` handler has sent to and has no answer from.
    waits_for: GilCell<Vec<Arc<Entity>>>,
    /// Whether it was in memory at least once in this run of the engine.
    pub(crate) declared: GilValue<bool>,
    /// Whether the engine has dropped it.
    pub(crate) dropped: GilValue<bool>,
}

impl Entity {
    pub(crate) fn new(kind: Arc<Kind>, id: &str, tally: Arc<Tally>) -> Self {
        Self {
            key: EntityKey::new(Arc::clone(&kind.name), Arc::from(id)),
            kind,
            tally,
            slot: GilCell::default(),
            running: GilCell::default(),
            waits_for: GilCell::default(),
            declared: GilValue::default(),
            dropped: GilValue::default(),
        }
    }

    /// Forgets what is in memory, unless that has happened since `generation`.
    pub(crate) fn forget(&self, py: Python<'_>, generation: u32) {
        let forgotten = {
            let mut slot = self.slot.borrow_mut(py);
            if slot.generation() == generation { slot.reset() } else { None }
        };
        drop(forgotten);
    }

    pub(crate) fn generation(&self, py: Python<'_>) -> u32 {
        self.slot.borrow(py).generation()
    }

    #[inline]
    pub(crate) fn enter(&self, py: Python<'_>) -> (Entry<Live>, u32) {
        let mut slot = self.slot.borrow_mut(py);
        (slot.enter(), slot.generation())
    }

    /// Puts back what was taken out and lets go of the turn, unless somebody waits for it.
    #[inline]
    pub(crate) fn put_and_pass_on(&self, py: Python<'_>, live: Live, generation: u32) -> Option<Message> {
        let (stale, next) = {
            let mut slot = self.slot.borrow_mut(py);
            (slot.put(live, generation), slot.next_or_leave())
        };
        drop(stale);
        next
    }

    /// For the holder of the turn: puts back what it took out.
    #[inline]
    pub(crate) fn put(&self, py: Python<'_>, live: Live, generation: u32) {
        let stale = self.slot.borrow_mut(py).put(live, generation);
        drop(stale);
    }

    /// Takes a message out of the mailbox; it will never run.
    pub(crate) fn withdraw(&self, py: Python<'_>, answer: &Py<Future>) -> bool {
        let withdrawn = self.slot.borrow_mut(py).withdraw(|message| message.answer.held().is(answer));
        if withdrawn.is_some() {
            self.tally.queued.sub(py, 1);
        }
        withdrawn.is_some()
    }

    pub(crate) fn waits(&self, py: Python<'_>, other: &Arc<Self>) {
        self.waits_for.borrow_mut(py).push(Arc::clone(other));
    }

    pub(crate) fn waits_no_more(&self, py: Python<'_>, other: &Arc<Self>) {
        let mut waits_for = self.waits_for.borrow_mut(py);
        if let Some(index) = waits_for.iter().position(|held| Arc::ptr_eq(held, other)) {
            waits_for.swap_remove(index);
        }
    }

    /// The way from `self` to `goal` along who waits for whom, both included.
    pub(crate) fn way_to(self: &Arc<Self>, py: Python<'_>, goal: &Arc<Self>) -> Option<Vec<Arc<Self>>> {
        let mut ways = vec![vec![Arc::clone(self)]];
        let mut seen = vec![Arc::as_ptr(self)];
        while let Some(way) = ways.pop() {
            let Some(last) = way.last() else { continue };
            if Arc::ptr_eq(last, goal) {
                return Some(way);
            }
            for next in last.waits_for.borrow(py).iter() {
                if !seen.contains(&Arc::as_ptr(next)) {
                    seen.push(Arc::as_ptr(next));
                    let mut longer = way.clone();
                    longer.push(Arc::clone(next));
                    ways.push(longer);
                }
            }
        }
        None
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(slot) = self.slot.in_traverse() {
            if let Some(live) = slot.content() {
                visit.call(&live.behavior)?;
                visit.call(&live.state)?;
            }
            for message in slot.mailbox().iter() {
                visit.call(message.answer.held())?;
                visit.call(&message.context)?;
                if let Wants::Command(command) = &message.wants {
                    visit.call(command)?;
                }
            }
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
