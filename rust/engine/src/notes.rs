//! What the engine itself keeps in a store, by name: where projections stand, what they left out.
//!
//! A note is durable when its awaitable is done. Nobody has to wait for it.

use crate::engine::{Engine, Mode};
use crate::error;
use crate::run::Run;
use crate::turn::{Fate, fate};
use ego_answer::answer::{Answer, Phase};
use ego_answer::cell::GilCell;
use ego_core::journal::{Journal, Read, Ticket};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::sync::Arc;

/// The notes of one store that are on their way.
pub struct Ledger {
    journal: Arc<dyn Journal>,
    /// In the order of tickets.
    waiting: GilCell<VecDeque<(Ticket, Answer)>>,
}

impl Ledger {
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, waiting: GilCell::default() }
    }

    pub fn is_idle(&self, py: Python<'_>) -> bool {
        self.waiting.borrow(py).is_empty()
    }

    pub fn kick(&self, py: Python<'_>) {
        if !self.is_idle(py) {
            self.journal.kick();
        }
    }

    /// Shows what is settled. With `step`, waiting tasks run right here: only from a callback of the loop.
    ///
    /// # Errors
    /// What a waiting task may not swallow.
    pub fn go_on(&self, py: Python<'_>, step: bool) -> PyResult<()> {
        let settled = self.journal.settled();
        let mut result = Ok(());
        while self.waiting.borrow(py).front().is_some_and(|(ticket, _)| *ticket <= settled) {
            let next = self.waiting.borrow_mut(py).pop_front();
            let Some((ticket, answer)) = next else { break };
            result = result.and(self.show(py, ticket, &answer, step).map(drop));
        }
        result
    }

    /// Shows an answer if its ticket is settled; whether it is.
    fn show(&self, py: Python<'_>, ticket: Ticket, answer: &Answer, step: bool) -> PyResult<bool> {
        match fate(&*self.journal, ticket) {
            Fate::Open => return Ok(false),
            Fate::Stored => {
                answer.prepare(py, Ok(py.None().into_bound(py)));
                answer.show(py, step)?;
            }
            Fate::Lost(failure) => answer.fail(py, error::storage(py, &failure), step)?,
        }
        Ok(true)
    }

    /// The run is over: whoever still waits is told that nobody knows.
    ///
    /// # Errors
    /// What the loop raises.
    pub fn end(&self, py: Python<'_>) -> PyResult<()> {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut(py));
        let mut result = Ok(());
        for (_, answer) in waiting {
            let failure = error::not_started(py, "the engine stopped before the note was durable; it may be stored");
            result = result.and(answer.fail(py, failure, false));
        }
        result
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let waiting = self.waiting.in_traverse();
        waiting.iter().flat_map(|waiting| waiting.iter()).try_for_each(|(_, answer)| visit.call(answer.held()))
    }
}

/// Writes a note, or removes it; the awaitable is done once that is durable. Where it is not `soon`, it goes with the
/// next batch.
///
/// # Errors
/// `EngineNotStartedError`, `MessageTooLargeError`, `StorageError`; it is called elsewhere.
pub fn write(engine: &Bound<'_, Engine>, name: &str, value: Option<&[u8]>, soon: bool) -> PyResult<Py<PyAny>> {
    let py = engine.py();
    let run = engine.get().running(py)?;
    check_home(py, &run)?;
    let ledger = &run.notes;
    let ticket = ledger.journal.write_note(name, value.unwrap_or_default());
    let ticket = ticket.map_err(|failure| error::storage(py, &failure))?;
    if soon || engine.get().mode.get(py) != Mode::Open {
        ledger.journal.kick();
    }
    let answer = Answer::pending(py, &run.home.event_loop, Phase::Writing, 0)?;
    // Whoever does not wait has no use for its failure either.
    answer.set_told(py);
    if !ledger.show(py, ticket, &answer, false)? {
        ledger.waiting.borrow_mut(py).push_back((ticket, answer.clone_ref(py)));
    }
    Ok(answer.into_any())
}

/// The durable notes of which the names start with `prefix`, sorted; awaitable.
///
/// # Errors
/// `EngineNotStartedError`; it is called elsewhere.
pub fn read<'py>(engine: &Bound<'py, Engine>, prefix: String) -> PyResult<Bound<'py, PyAny>> {
    let py = engine.py();
    let run = engine.get().running(py)?;
    let journal = Arc::clone(&run.notes.journal);
    in_a_thread(py, &run, move |py| {
        let mut found = Vec::new();
        let read = py.detach(|| {
            journal.read_notes(&prefix, &mut |name, value| {
                found.push((name.to_owned(), value.to_vec()));
                Read::More
            })
        });
        read.map_err(|failure| error::storage(py, &failure))?;
        let notes = found.iter().map(|(name, value)| (name, PyBytes::new(py, value)));
        Ok(notes.collect::<Vec<_>>().into_pyobject(py)?.unbind())
    })
}

fn check_home(py: Python<'_>, run: &Run) -> PyResult<()> {
    if run.home.elsewhere(py)?.is_none() {
        return Ok(());
    }
    Err(PyRuntimeError::new_err("notes are written on the event loop of their engine"))
}

/// What a function gives that may wait for a disk, awaitable on the engine's loop.
///
/// # Errors
/// It is called elsewhere; what the loop raises.
pub fn in_a_thread<'py>(
    py: Python<'py>,
    run: &Run,
    body: impl Fn(Python<'_>) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    check_home(py, run)?;
    let call = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| body(arguments.py());
    let call = PyCFunction::new_closure(py, None, None, call)?;
    run.home.event_loop.bind(py).call_method1("run_in_executor", (py.None(), call))
}
