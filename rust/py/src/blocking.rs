//! Callers that block: `ego.sync`.
//!
//! A command takes the same way as one from a coroutine, on the caller's thread; only its answer is waited for with the
//! interpreter lock released. Nobody may block who holds up what he waits for: an event loop, or a `def` handler.

use crate::entity_ref::{EntityRef, Timeout};
use ego_answer::answer::Answer;
use ego_answer::wake;
use ego_core::StoreError;
use ego_engine::dispatch::{At, Wish};
use ego_engine::terms::Given;
use ego_engine::{context, error};
use pyo3::prelude::*;

/// Refuses to block an event loop or a `def` handler.
///
/// # Errors
/// `EngineNotStartedError`.
#[pyfunction]
pub(crate) fn check_may_block(py: Python<'_>) -> PyResult<()> {
    if context::in_plain_handler() {
        return Err(error::not_started(
            py,
            "a plain handler cannot wait for another entity: tell it, or make the handler async def",
        ));
    }
    if wake::running_or_none(py)?.is_none() {
        return Ok(());
    }
    Err(error::not_started(py, "an event loop runs in this thread, and waiting here would block it: use ego.Engine"))
}

/// Sends a command and waits for its `(state, revision)`.
#[pyfunction]
#[pyo3(signature = (entity, command, timeout, expected_revision, command_id, metadata))]
pub(crate) fn call<'py>(
    entity: &Bound<'py, EntityRef>,
    command: &Bound<'py, PyAny>,
    timeout: Timeout,
    expected_revision: Option<&Bound<'py, PyAny>>,
    command_id: Option<&Bound<'py, PyAny>>,
    metadata: Option<&Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let given = Given { expected_revision, command_id, metadata };
    let given = (!given.is_empty()).then_some(&given);
    ask(entity, |at| at.send(command, timeout.0, given))
}

/// Waits for `(state, revision)` without a command.
#[pyfunction]
pub(crate) fn call_state(entity: &Bound<'_, EntityRef>, timeout: Timeout) -> PyResult<Py<PyAny>> {
    ask(entity, |at| at.ask(Wish::State, timeout.0))
}

fn ask<'py>(entity: &Bound<'py, EntityRef>, body: impl FnOnce(At<'_, 'py>) -> PyResult<Answer>) -> PyResult<Py<PyAny>> {
    let py = entity.py();
    let answer = entity.get().with_place(py, false, |at| {
        if context::in_plain_handler() {
            at.check_deadlock()?;
        }
        check_may_block(py)?;
        // The loop is another process's: nothing that needs it would ever be done.
        match at.journal().poisoned() {
            Some(forked @ StoreError::Forked { .. }) => Err(error::storage(py, &forked)),
            _ => body(at),
        }
    })?;
    answer.wait(py)
}
