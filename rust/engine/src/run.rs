//! One run of an engine, between start and stop: its stores, its loop, and what the loop calls.

use crate::dispatch::{self, At};
use crate::engine::Engine;
use crate::entity::Entity;
use crate::feed::{self, Feed};
use crate::held::{self, Held};
use crate::kind::Kind;
use crate::notes::Ledger;
use crate::pending::{self, Waiting};
use ego_answer::cell::{GilCell, GilValue};
use ego_answer::wake::{Bell, Home};
use ego_core::feed::Waker;
use ego_core::journal::Journal;
use ego_core::loader::Loader;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::sync::Arc;

/// A store of a run, and who waits for it.
pub struct Lane {
    pub journal: Arc<dyn Journal>,
    pub loader: Arc<Loader>,
    pub held: GilCell<Held>,
    /// Whether commands wait for room in the journal: those who come later wait behind them.
    pub is_stalled: GilValue<bool>,
    /// In the order of tickets.
    pub waiting: GilCell<VecDeque<Waiting>>,
    /// Appends that the committer was not told of.
    pub unkicked: GilValue<u64>,
    /// Commands that the last drain showed.
    pub last_batch: GilValue<u64>,
}

impl Lane {
    pub fn new(journal: Arc<dyn Journal>, loader: Arc<Loader>) -> Self {
        Self {
            journal,
            loader,
            held: GilCell::default(),
            is_stalled: GilValue::default(),
            waiting: GilCell::default(),
            unkicked: GilValue::default(),
            last_batch: GilValue::default(),
        }
    }

    /// Whether a command has to wait before it runs.
    #[inline]
    pub fn is_full(&self, py: Python<'_>) -> bool {
        self.is_stalled.get(py) || self.journal.is_congested()
    }
}

/// An engine between start and stop.
pub struct Run {
    /// Where events go, and states too unless they have a store of their own.
    pub events: Lane,
    pub states: Option<Lane>,
    pub home: Home,
    pub callbacks: Callbacks,
    pub bell: Arc<Bell>,
    /// Rings the bell; one and the same for all who want the loop.
    pub wake: Waker,
    /// The feeds that somebody waits for.
    pub listening: GilCell<Vec<Py<Feed>>>,
    /// Those of the store that has the events.
    pub notes: Ledger,
    /// Whether settled commands are being shown right now.
    pub draining: GilValue<bool>,
    pub flush_is_due: GilValue<bool>,
    pub pump_is_due: GilValue<bool>,
    /// The nearest deadline of a command; 0 for none.
    pub deadline: GilValue<u64>,
    /// What the timer is set to; 0 for nothing.
    pub nearest: GilValue<u64>,
    /// Whether the engine has stopped; a thread that was in a handler may come back later.
    pub is_over: GilValue<bool>,
    /// Calls from other loops and threads that are under way.
    pub visitors: GilValue<u64>,
}

impl Run {
    pub fn new(events: Lane, states: Option<Lane>, home: Home, callbacks: Callbacks, bell: Arc<Bell>) -> Self {
        let weak = Arc::downgrade(&bell);
        let wake = move || {
            if let Some(bell) = weak.upgrade() {
                bell.ring();
            }
        };
        Self {
            wake: Arc::new(wake),
            listening: GilCell::default(),
            notes: Ledger::new(Arc::clone(&events.journal)),
            events,
            states,
            home,
            callbacks,
            bell,
            draining: GilValue::default(),
            flush_is_due: GilValue::default(),
            pump_is_due: GilValue::default(),
            deadline: GilValue::default(),
            nearest: GilValue::default(),
            visitors: GilValue::default(),
            is_over: GilValue::default(),
        }
    }

    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.events).chain(&self.states)
    }

    /// The store of a kind.
    #[inline]
    pub fn lane(&self, kind: &Kind) -> &Lane {
        match &self.states {
            Some(states) if kind.is_durable_state => states,
            _ => &self.events,
        }
    }

    /// The commands that wait for a disk.
    pub fn count_waiting(&self, py: Python<'_>) -> usize {
        self.lanes().map(|lane| lane.waiting.borrow(py).len()).sum()
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.home.event_loop)?;
        for callback in [&self.callbacks.drain, &self.callbacks.flush, &self.callbacks.expire, &self.callbacks.pump] {
            visit.call(callback)?;
        }
        for lane in self.lanes() {
            for waiting in lane.waiting.in_traverse().iter().flat_map(|waiting| waiting.iter()) {
                waiting.traverse(visit)?;
            }
            lane.held.in_traverse().map_or(Ok(()), |held| held.traverse(visit))?;
        }
        for feed in self.listening.in_traverse().iter().flat_map(|listening| listening.iter()) {
            visit.call(feed)?;
        }
        self.notes.traverse(visit)
    }
}

#[derive(Debug)]
pub struct Callbacks {
    pub drain: Py<Callback>,
    pub flush: Py<Callback>,
    pub expire: Py<Callback>,
    pub pump: Py<Callback>,
}

impl Callbacks {
    pub fn new(engine: &Bound<'_, Engine>) -> PyResult<Self> {
        Ok(Self {
            drain: Callback::new(engine, Call::Drain)?,
            flush: Callback::new(engine, Call::Flush)?,
            expire: Callback::new(engine, Call::Expire)?,
            pump: Callback::new(engine, Call::Pump)?,
        })
    }
}

/// What a loop calls an engine for.
#[derive(Debug)]
pub enum Call {
    Drain,
    Flush,
    Expire,
    /// Another thread wants the timer to ring sooner.
    Rearm,
    Pump,
    PassOn(Arc<Entity>),
    Start(Arc<Entity>),
    Land(Arc<Entity>),
}

/// A function that an event loop is given.
#[pyclass(frozen, module = "ego._native")]
pub struct Callback {
    engine: Py<Engine>,
    call: Call,
}

impl Callback {
    pub fn new(engine: &Bound<'_, Engine>, call: Call) -> PyResult<Py<Self>> {
        Py::new(engine.py(), Self { engine: engine.clone().unbind(), call })
    }
}

#[pymethods]
impl Callback {
    #[pyo3(signature = (*arguments))]
    fn __call__(&self, arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        let py = arguments.py();
        let engine = self.engine.bind(py);
        let inner = engine.get();
        let run = inner.run.borrow(py).clone();
        let Some(run) = run else { return Ok(()) };
        let at = |entity| At { py, engine, run: &run, entity, caller: None };
        let called = match &self.call {
            Call::Drain => {
                run.bell.listen();
                let drained = pending::drain(engine, &run, true);
                let went_on = held::go_on(engine, &run).and(drained);
                let noted = run.notes.go_on(py, true);
                feed::go_on(py, &run).and(noted).and(went_on)
            }
            Call::Flush => {
                run.flush_is_due.set(py, false);
                pending::kick(py, &run);
                Ok(())
            }
            Call::Expire => pending::expire(engine, &run, run.nearest.get(py), true),
            Call::Rearm => pending::expire(engine, &run, 0, true),
            Call::Pump => dispatch::pump(engine, &run),
            Call::PassOn(entity) => at(entity).pass_on(),
            Call::Start(entity) => at(entity).start(false),
            Call::Land(entity) => at(entity).land(&arguments.get_item(0)?),
        };
        inner.check_drained(py).and(called)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)
    }
}
