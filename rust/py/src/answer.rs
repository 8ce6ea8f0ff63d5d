//! An answer as the engine holds it: what a command's sender will be shown, and when.
//!
//! It goes through its phases once, in order, and is done at once where nothing has to be waited for. It never runs a
//! handler and knows neither journal nor engine.

use crate::entity::Entity;
use crate::future::{Future, Waiter};
use crate::{error, fast, wake};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// In the mailbox; it can still be withdrawn.
    Queued,
    /// Its handler has begun.
    Running,
    /// Its handler is done and the disk is waited for.
    Writing,
    /// A result is shown.
    Shown,
    /// An exception is shown.
    Failed,
    /// The sender gave up.
    Cancelled,
}

/// What an answer that is waited for is connected to.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) entity: Arc<Entity>,
    /// The entity in whose `async def` handler the command was sent.
    pub(crate) sender: Option<Arc<Entity>>,
}

#[derive(Debug)]
pub(crate) struct Answer(Py<Future>);

impl Answer {
    /// An answer that is done: awaiting it gives `value` without a pause.
    #[inline]
    pub(crate) fn done(py: Python<'_>, value: Bound<'_, PyTuple>) -> PyResult<Self> {
        let value = Some(value.into_any().unbind());
        fast::make(py, Future::new(value, None, Phase::Shown, 0)).map(Self)
    }

    /// An answer that waits for the disk alone.
    #[inline]
    pub(crate) fn writing(
        py: Python<'_>,
        event_loop: &Py<PyAny>,
        value: Bound<'_, PyTuple>,
        deadline: u64,
    ) -> PyResult<Self> {
        let value = Some(value.into_any().unbind());
        fast::make(py, Future::new(value, Some(event_loop.clone_ref(py)), Phase::Writing, deadline)).map(Self)
    }

    /// An answer that is waited for.
    pub(crate) fn pending(py: Python<'_>, event_loop: &Py<PyAny>, phase: Phase, deadline: u64) -> PyResult<Self> {
        fast::make(py, Future::new(None, Some(event_loop.clone_ref(py)), phase, deadline)).map(Self)
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    #[inline]
    pub(crate) fn into_any(self) -> Py<PyAny> {
        self.0.into_any()
    }

    pub(crate) fn held(&self) -> &Py<Future> {
        &self.0
    }

    pub(crate) fn phase(&self, py: Python<'_>) -> Phase {
        self.0.get().phase.get(py)
    }

    pub(crate) fn is_done(&self, py: Python<'_>) -> bool {
        self.phase(py) >= Phase::Shown
    }

    /// Moves on to a later phase, unless the sender has already been answered.
    pub(crate) fn advance(&self, py: Python<'_>, phase: Phase) {
        if !self.is_done(py) {
            self.0.get().phase.set(py, phase);
        }
    }

    pub(crate) fn deadline(&self, py: Python<'_>) -> u64 {
        self.0.get().deadline.get(py)
    }

    pub(crate) fn link(&self, py: Python<'_>, link: Link) {
        self.0.get().rest(py).link = Some(link);
    }

    /// Makes it the answer of a `tell`: nobody waits, exceptions go to the log.
    pub(crate) fn set_told(&self, py: Python<'_>) {
        self.0.get().told.set(py, true);
    }

    pub(crate) fn is_told(&self, py: Python<'_>) -> bool {
        self.0.get().told.get(py)
    }

    /// Lays down what will be shown once the disk has it.
    pub(crate) fn prepare(&self, py: Python<'_>, value: PyResult<Bound<'_, PyAny>>) {
        if self.is_done(py) {
            return;
        }
        let future = self.0.get();
        future.is_error.set(py, value.is_err());
        future.put(py, Some(value.map_or_else(|error| showable(py, error).into_value(py).into_any(), Bound::unbind)));
        future.phase.set(py, Phase::Writing);
    }

    /// Shows what was laid down. With `step`, the waiting task runs before this returns: only where no task is current.
    ///
    /// # Errors
    /// What the waiting task may not swallow: `KeyboardInterrupt`, `SystemExit`.
    pub(crate) fn show(&self, py: Python<'_>, step: bool) -> PyResult<()> {
        if self.is_done(py) {
            return Ok(());
        }
        let future = self.0.get();
        let Some(error) = self.error(py) else { return settle(self.0.bind(py), Phase::Shown, step) };
        future.rest(py).traceback = error.traceback(py).map(Bound::unbind);
        future.unretrieved.set(py, !future.told.get(py) && !error::is_cancellation(py, &error));
        settle(self.0.bind(py), Phase::Failed, step)
    }

    /// Shows an exception instead of what was laid down.
    pub(crate) fn fail(&self, py: Python<'_>, error: PyErr, step: bool) -> PyResult<()> {
        self.prepare(py, Err(error));
        self.show(py, step)
    }

    /// The exception that is shown or laid down.
    pub(crate) fn error(&self, py: Python<'_>) -> Option<PyErr> {
        self.0.get().error(py)
    }
}

/// An exception as an awaitable may raise it: a `StopIteration` would be taken for a result.
fn showable(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error;
    }
    error::from_cause(py, PyRuntimeError::new_err("a handler raised StopIteration"), error)
}

/// Ends the waiting: nothing of an answer changes afterwards.
fn settle(future: &Bound<'_, Future>, phase: Phase, step: bool) -> PyResult<()> {
    let py = future.py();
    let inner = future.get();
    inner.phase.set(py, phase);
    inner.deadline.set(py, 0);
    let waiter = inner.waiter.borrow_mut(py).take();
    let (more, link) = match &mut *inner.rest.borrow_mut(py) {
        Some(rest) => (std::mem::take(&mut rest.more), rest.link.take()),
        None => (Vec::new(), None),
    };
    if let Some(link) = link {
        link.unlink(py);
    }
    let Some(Waiter { callback, context }) = waiter else { return Ok(()) };
    let event_loop = inner.event_loop(py)?;
    let (callback, context) = (callback.bind(py), context.bind(py));
    let stepped = if step {
        wake::step(py, &event_loop, callback, future, context)
    } else {
        wake::call_soon(&event_loop, callback, future, context)
    };
    for Waiter { callback, context } in more {
        wake::call_soon(&event_loop, callback.bind(py), future, context.bind(py))?;
    }
    stepped
}

/// Gives up on an answer; false if it was done already.
pub(crate) fn cancel(future: &Bound<'_, Future>, message: Option<Py<PyAny>>) -> PyResult<bool> {
    let py = future.py();
    let inner = future.get();
    if inner.phase.get(py) >= Phase::Shown {
        return Ok(false);
    }
    inner.rest(py).message = message;
    if inner.phase.get(py) == Phase::Queued {
        let entity = inner.rest(py).link.as_ref().map(|link| Arc::clone(&link.entity));
        entity.map(|entity| entity.withdraw(py, future.as_unbound()));
    }
    inner.put(py, None);
    inner.is_error.set(py, false);
    settle(future, Phase::Cancelled, false)?;
    Ok(true)
}

impl Link {
    pub(crate) fn unlink(&self, py: Python<'_>) {
        if let Some(sender) = &self.sender {
            sender.waits_no_more(py, &self.entity);
        }
    }
}
