//! An answer as the engine holds it: what a command's sender will be shown, and when.
//!
//! It goes through its phases once, in order, and is done at once where nothing has to be waited for.

use crate::future::{Future, Waiter};
use crate::line;
use crate::{error, fast, wake};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
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
pub trait Link: Send + Sync + std::fmt::Debug {
    /// The sender gave up while the command was queued: it must not run.
    fn withdraw(&self, py: Python<'_>, answer: &Py<Future>);

    /// Nobody waits any more. Called once.
    fn unlink(&self, py: Python<'_>);
}

/// What a command's sender will be shown.
#[derive(Debug)]
pub struct Answer(Py<Future>);

impl Answer {
    /// An answer that is done: awaiting it gives `value` without a pause.
    #[inline]
    pub fn done(py: Python<'_>, value: Bound<'_, PyTuple>) -> PyResult<Self> {
        let value = Some(value.into_any().unbind());
        fast::make(py, Future::new(value, None, Phase::Shown, 0)).map(Self)
    }

    /// An answer that waits for the disk alone.
    #[inline]
    pub fn writing(py: Python<'_>, event_loop: &Py<PyAny>, value: Bound<'_, PyTuple>, deadline: u64) -> PyResult<Self> {
        let value = Some(value.into_any().unbind());
        fast::make(py, Future::new(value, Some(event_loop.clone_ref(py)), Phase::Writing, deadline)).map(Self)
    }

    /// An answer that is waited for elsewhere than on the engine's loop: on another one, or by a thread without one.
    ///
    /// # Errors
    /// There is no memory.
    pub fn elsewhere(py: Python<'_>, event_loop: &Bound<'_, PyAny>, phase: Phase, deadline: u64) -> PyResult<Self> {
        let event_loop = (!event_loop.is_none()).then(|| event_loop.clone().unbind());
        let future = Future::new(None, event_loop, phase, deadline);
        future.elsewhere.set(py, true);
        fast::make(py, future).map(Self)
    }

    /// Lets this thread wait until something is shown, without the interpreter lock, and gives it.
    ///
    /// # Errors
    /// The exception that is shown; what a signal handler raises, and then the answer is given up.
    pub fn wait(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if !self.is_done(py) {
            let waiter = &self.0.get().waiter;
            let blocked = line::block(py, |seat| *waiter.borrow_mut(py) = Some(Waiter::Thread(seat)));
            if let Err(interrupted) = blocked {
                waiter.borrow_mut(py).take();
                cancel(self.0.bind(py), None)?;
                return Err(interrupted);
            }
        }
        let shown = self.0.get().result(py)?;
        Ok(shown.unwrap_or_else(|| py.None()))
    }

    /// An answer that is waited for.
    ///
    /// # Errors
    /// There is no memory.
    pub fn pending(py: Python<'_>, event_loop: &Py<PyAny>, phase: Phase, deadline: u64) -> PyResult<Self> {
        fast::make(py, Future::new(None, Some(event_loop.clone_ref(py)), phase, deadline)).map(Self)
    }

    /// Another reference to the same answer.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// The awaitable itself.
    #[inline]
    pub fn into_any(self) -> Py<PyAny> {
        self.0.into_any()
    }

    /// The awaitable.
    pub fn held(&self) -> &Py<Future> {
        &self.0
    }

    /// How far it has come.
    pub fn phase(&self, py: Python<'_>) -> Phase {
        self.0.get().phase.get(py)
    }

    /// Whether something is shown.
    pub fn is_done(&self, py: Python<'_>) -> bool {
        self.phase(py) >= Phase::Shown
    }

    /// Moves on to a later phase, unless the sender has already been answered.
    pub fn advance(&self, py: Python<'_>, phase: Phase) {
        if !self.is_done(py) {
            self.0.get().phase.set(py, phase);
        }
    }

    /// When the sender's time is over; 0 for never.
    pub fn deadline(&self, py: Python<'_>) -> u64 {
        self.0.get().deadline.get(py)
    }

    /// Connects it; only while nothing is shown.
    pub fn link(&self, py: Python<'_>, link: Box<dyn Link>) {
        self.0.get().rest(py).link = Some(link);
    }

    /// Its entity's turn is over: who waits for it waits for the disk alone.
    pub fn unlink(&self, py: Python<'_>) {
        let link = self.0.get().rest.borrow_mut(py).as_mut().and_then(|rest| rest.link.take());
        if let Some(link) = link {
            link.unlink(py);
        }
    }

    /// Makes it the answer of a `tell`: nobody waits, exceptions go to the log.
    pub fn set_told(&self, py: Python<'_>) {
        self.0.get().told.set(py, true);
    }

    /// Whether nobody waits for it.
    pub fn is_told(&self, py: Python<'_>) -> bool {
        self.0.get().told.get(py)
    }

    /// Lays down what will be shown once the disk has it.
    pub fn prepare(&self, py: Python<'_>, value: PyResult<Bound<'_, PyAny>>) {
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
    pub fn show(&self, py: Python<'_>, step: bool) -> PyResult<()> {
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
    pub fn fail(&self, py: Python<'_>, error: PyErr, step: bool) -> PyResult<()> {
        self.prepare(py, Err(error));
        self.show(py, step)
    }

    /// The exception that is shown or laid down.
    pub fn error(&self, py: Python<'_>) -> Option<PyErr> {
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
    let Some(waiter) = waiter else { return Ok(()) };
    let told = tell(future, waiter, step && !inner.elsewhere.get(py));
    for waiter in more {
        tell(future, waiter, false)?;
    }
    told
}

fn tell(future: &Bound<'_, Future>, waiter: Waiter, step: bool) -> PyResult<()> {
    let py = future.py();
    match waiter {
        Waiter::Thread(seat) => {
            line::call(py, seat);
            Ok(())
        }
        Waiter::OfLoop { callback, context } => {
            let event_loop = future.get().event_loop(py)?;
            let (callback, context) = (callback.bind(py), context.bind(py));
            if step {
                wake::step(py, &event_loop, callback, future, context)
            } else {
                wake::call_soon(&event_loop, callback, future, context)
            }
        }
    }
}

/// Gives up on an answer; false if it was done already.
pub fn cancel(future: &Bound<'_, Future>, message: Option<Py<PyAny>>) -> PyResult<bool> {
    let py = future.py();
    let inner = future.get();
    if inner.phase.get(py) >= Phase::Shown {
        return Ok(false);
    }
    inner.rest(py).message = message;
    if inner.phase.get(py) == Phase::Queued {
        let link = inner.rest(py).link.take();
        if let Some(link) = link {
            link.withdraw(py, future.as_unbound());
            inner.rest(py).link = Some(link);
        }
    }
    inner.put(py, None);
    inner.is_error.set(py, false);
    settle(future, Phase::Cancelled, false)?;
    Ok(true)
}
