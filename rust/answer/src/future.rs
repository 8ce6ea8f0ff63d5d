//! An answer as Python holds it: a future and a coroutine at the same time.
//!
//! asyncio and uvloop take any object with this protocol for a future. `cancel` and `add_done_callback` never run a
//! callback themselves; they ask the loop to. The way of `await` itself is in `fast.rs`.

use crate::answer::{Link, Phase, cancel};
use crate::cell::{GilCell, GilValue};
use crate::line::Seat;
use crate::{error, wake};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyTraceback, PyType};
use pyo3::{PyTraverseError, PyVisit};
use std::cell::RefMut;
use std::sync::Arc;

/// Who is told once an answer is done.
#[derive(Debug)]
pub enum Waiter {
    /// A function that the answer's loop calls with the answer, in a context.
    OfLoop {
        /// The function.
        callback: Py<PyAny>,
        /// The context.
        context: Py<PyAny>,
    },
    /// A thread that blocks.
    Thread(Arc<Seat>),
}

/// What few answers have.
#[derive(Debug, Default)]
pub struct Rest {
    /// All waiters but the first.
    pub more: Vec<Waiter>,
    /// That of the exception when it was shown.
    pub traceback: Option<Py<PyTraceback>>,
    /// What the sender said when it gave up.
    pub message: Option<Py<PyAny>>,
    /// What it is connected to.
    pub link: Option<Box<dyn Link>>,
}

/// The answer of one command.
#[pyclass(frozen, name = "Answer", module = "ego._native")]
pub struct Future {
    /// The result or the exception that is shown, or will be once the disk has it.
    pub value: GilCell<Option<Py<PyAny>>>,
    /// The loop it is awaited on; none where it was done when it was made, or where a thread waits.
    pub event_loop: GilCell<Option<Py<PyAny>>>,
    /// The first who waits.
    pub waiter: GilCell<Option<Waiter>>,
    /// What few answers have.
    pub rest: GilCell<Option<Box<Rest>>>,
    /// Nanoseconds of the monotonic clock; 0 for none.
    pub deadline: GilValue<u64>,
    /// How far it has come.
    pub phase: GilValue<Phase>,
    /// Whether `value` is an exception.
    pub is_error: GilValue<bool>,
    /// asyncio's mark that a task waits for it.
    pub blocking: GilValue<bool>,
    /// Whether an exception is shown that nobody has seen.
    pub unretrieved: GilValue<bool>,
    /// Whether the collector has looked at it: memory of which it does so but once is not used again.
    pub finalized: GilValue<bool>,
    /// Whether nobody holds it: exceptions go to the log.
    pub told: GilValue<bool>,
    /// Whether it is awaited elsewhere than on the engine's loop.
    pub elsewhere: GilValue<bool>,
}

impl Future {
    /// An answer in a phase.
    #[inline]
    pub fn new(value: Option<Py<PyAny>>, event_loop: Option<Py<PyAny>>, phase: Phase, deadline: u64) -> Self {
        Self {
            value: GilCell::new(value),
            event_loop: GilCell::new(event_loop),
            waiter: GilCell::new(None),
            rest: GilCell::new(None),
            deadline: GilValue::new(deadline),
            phase: GilValue::new(phase),
            is_error: GilValue::new(false),
            blocking: GilValue::new(false),
            unretrieved: GilValue::new(false),
            finalized: GilValue::new(false),
            told: GilValue::new(false),
            elsewhere: GilValue::new(false),
        }
    }

    /// What few answers have, made when it is first asked for.
    pub fn rest(&self, py: Python<'_>) -> RefMut<'_, Rest> {
        RefMut::map(self.rest.borrow_mut(py), |rest| &mut **rest.get_or_insert_default())
    }

    /// Another value.
    pub fn put(&self, py: Python<'_>, value: Option<Py<PyAny>>) {
        let before = std::mem::replace(&mut *self.value.borrow_mut(py), value);
        drop(before);
    }

    /// The loop it is awaited on.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &*self.event_loop.borrow(py) {
            Some(held) => Ok(held.bind(py).clone()),
            None => wake::running_loop(py),
        }
    }

    /// The exception that is shown or laid down.
    pub fn error(&self, py: Python<'_>) -> Option<PyErr> {
        let held = if self.is_error.get(py) { self.value.borrow(py).as_ref()?.clone_ref(py) } else { return None };
        Some(PyErr::from_value(held.into_bound(py)))
    }

    fn cancelled_error(&self, py: Python<'_>) -> PyErr {
        let message = self.rest(py).message.as_ref().map(|held| held.clone_ref(py));
        error::cancelled(py, message)
    }

    /// What is raised instead of a result, with the traceback that it had at first.
    pub fn failure(&self, py: Python<'_>) -> PyErr {
        match self.phase.get(py) {
            Phase::Cancelled => return self.cancelled_error(py),
            Phase::Queued | Phase::Running | Phase::Writing => return error::invalid_state(),
            Phase::Shown | Phase::Failed => self.unretrieved.set(py, false),
        }
        let Some(failure) = self.error(py) else { return error::invalid_state() };
        let traceback = self.rest(py).traceback.as_ref().map(|held| held.bind(py).clone());
        failure.set_traceback(py, traceback);
        failure
    }

    /// The functions that a loop is to call.
    fn callbacks(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let (first, rest) = (self.waiter.borrow(py), self.rest(py));
        let callback = |waiter: &Waiter| match waiter {
            Waiter::OfLoop { callback, .. } => Some(callback.clone_ref(py)),
            Waiter::Thread(_) => None,
        };
        first.iter().chain(&rest.more).filter_map(callback).collect()
    }

    /// Tells the loop about an exception that nobody has seen and nobody can see any more.
    pub(crate) fn report(&self, py: Python<'_>) {
        if !self.unretrieved.get(py) {
            return;
        }
        self.unretrieved.set(py, false);
        let pending = PyErr::take(py);
        if let (Some(failure), Ok(event_loop)) = (self.error(py), self.event_loop(py))
            && let Err(failure) = wake::report(&event_loop, "an answer's exception was never retrieved", failure)
        {
            failure.write_unraisable(py, None);
        }
        if let Some(pending) = pending {
            pending.restore(py);
        }
    }
}

impl Drop for Future {
    fn drop(&mut self) {
        Python::attach(|py| {
            self.report(py);
            let rest = self.rest.borrow_mut(py).take();
            if let Some(link) = rest.and_then(|rest| rest.link) {
                link.unlink(py);
            }
        });
    }
}

#[pymethods]
impl Future {
    /// The event loop of the engine.
    fn get_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.event_loop(py)
    }

    #[getter(_loop)]
    fn own_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.event_loop(py)
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self, py: Python<'_>) -> bool {
        self.blocking.get(py)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, py: Python<'_>, blocking: bool) {
        self.blocking.set(py, blocking);
    }

    #[getter(_cancel_message)]
    fn cancel_message(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.rest(py).message.as_ref().map(|held| held.clone_ref(py))
    }

    #[setter(_cancel_message)]
    fn set_cancel_message(&self, py: Python<'_>, message: Option<Py<PyAny>>) {
        self.rest(py).message = message;
    }

    /// Whether there is a result, an exception or a cancellation.
    fn done(&self, py: Python<'_>) -> bool {
        self.phase.get(py) >= Phase::Shown
    }

    /// Whether the answer was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.phase.get(py) == Phase::Cancelled
    }

    /// The result, or what is raised instead.
    pub fn result(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.phase.get(py) != Phase::Shown {
            return Err(self.failure(py));
        }
        Ok(self.value.borrow(py).as_ref().map(|held| held.clone_ref(py)))
    }

    /// The exception, or None where there is a result.
    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match self.phase.get(py) {
            Phase::Shown => Ok(None),
            Phase::Failed => Ok(Some(self.failure(py).into_value(py).into_any())),
            _ => Err(self.failure(py)),
        }
    }

    fn _make_cancelled_error(&self, py: Python<'_>) -> Py<PyAny> {
        self.cancelled_error(py).into_value(py).into_any()
    }

    /// Has the loop call a function with the answer once it is done.
    #[pyo3(signature = (callback, /, *, context = None))]
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Py<PyAny>, context: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let inner = slf.get();
        let context = match context {
            Some(context) => context,
            None => wake::copy_context(py)?.unbind(),
        };
        if inner.phase.get(py) >= Phase::Shown {
            return wake::call_soon(&inner.event_loop(py)?, callback.bind(py), slf, context.bind(py));
        }
        let waiter = Waiter::OfLoop { callback, context };
        let mut first = inner.waiter.borrow_mut(py);
        if first.is_none() {
            *first = Some(waiter)
        } else {
            inner.rest(py).more.push(waiter)
        }
        Ok(())
    }

    /// Forgets a function; returns how often it was there.
    fn remove_done_callback(&self, py: Python<'_>, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        // Comparing runs Python code, which may settle the answer: nothing is taken out before all are compared.
        let mut equal = Vec::new();
        for held in self.callbacks(py) {
            if held.bind(py).eq(callback)? {
                equal.push(held);
            }
        }
        let is_one = |waiter: &Waiter| match waiter {
            Waiter::OfLoop { callback, .. } => equal.iter().any(|held| held.is(callback)),
            Waiter::Thread(_) => false,
        };
        let first = self.waiter.borrow_mut(py).take();
        let more = std::mem::take(&mut self.rest(py).more);
        let (gone, kept): (Vec<_>, Vec<_>) = first.into_iter().chain(more).partition(is_one);
        let mut kept = kept.into_iter();
        *self.waiter.borrow_mut(py) = kept.next();
        self.rest(py).more = kept.collect();
        Ok(gone.len())
    }

    /// Gives up: a queued command is dropped, one that has begun is finished. False where it was done already.
    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        cancel(slf, msg)
    }

    /// For the coroutine protocol.
    fn send<'py>(slf: &Bound<'py, Self>, _value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        Self::__next__(slf)
    }

    /// For the coroutine protocol.
    #[pyo3(signature = (kind, value = None, _traceback = None, /))]
    fn throw(
        slf: &Bound<'_, Self>,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let thrown = match (kind.cast::<PyType>(), value) {
            (Err(_), _) => PyErr::from_value(kind.clone()),
            (Ok(kind), Some(value)) if value.is_instance(kind)? => PyErr::from_value(value.clone()),
            (Ok(kind), Some(value)) => PyErr::from_value(kind.call1((value,))?),
            (Ok(kind), None) => PyErr::from_value(kind.call0()?),
        };
        if error::is_cancellation(slf.py(), &thrown) {
            cancel(slf, None)?;
        }
        Err(thrown)
    }

    /// Does nothing: a command is accepted when it is sent.
    #[expect(clippy::unused_self, reason = "part of the coroutine protocol")]
    fn close(&self) {}

    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, inner) = (slf.py(), slf.get());
        match inner.phase.get(py) {
            Phase::Shown => Err(PyStopIteration::new_err((inner.result(py)?,))),
            Phase::Failed | Phase::Cancelled => Err(inner.failure(py)),
            _ if inner.blocking.get(py) => Err(awaited_badly()),
            _ => {
                inner.blocking.set(py, true);
                Ok(slf.clone())
            }
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<ego.Answer {}>", format!("{:?}", self.phase.get(py)).to_lowercase())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for held in [&self.value, &self.event_loop] {
            held.in_traverse().map_or(Ok(()), |held| visit.call(held.as_ref()))?;
        }
        let (first, rest) = (self.waiter.in_traverse(), self.rest.in_traverse());
        let rest = rest.as_deref().and_then(Option::as_deref);
        let more = rest.map_or(&[][..], |rest| &rest.more);
        for waiter in first.iter().flat_map(|first| first.iter()).chain(more) {
            match waiter {
                Waiter::OfLoop { callback, context } => {
                    visit.call(callback)?;
                    visit.call(context)?;
                }
                Waiter::Thread(_) => {}
            }
        }
        if let Some(rest) = rest {
            visit.call(rest.traceback.as_ref())?;
            visit.call(rest.message.as_ref())?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            let rest = self.rest.borrow_mut(py).take();
            if let Some(link) = rest.as_ref().and_then(|rest| rest.link.as_ref()) {
                link.unlink(py);
            }
            let first = self.waiter.borrow_mut(py).take();
            let event_loop = self.event_loop.borrow_mut(py).take();
            self.put(py, None);
            drop((rest, first, event_loop));
        });
    }
}

/// What is raised where an answer is resumed before it is done.
pub fn awaited_badly() -> PyErr {
    PyRuntimeError::new_err("the answer was resumed before it was done; await it instead")
}
