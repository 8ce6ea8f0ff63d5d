//! `async def` handlers: one task per handler, on the engine's loop.
//!
//! It starts only when everything that the handler saw is durable, since it may act on the outside. Its entity's turn
//! is held meanwhile; other entities go on.

use crate::answer::{Answer, Phase};
use crate::context::{self, Context, Frame, Tell};
use crate::dispatch::{self, Ended};
use crate::engine::{Call, Callback, Engine, Run};
use crate::entity::{Entity, Live, Running};
use crate::pending::{self, Then, Verdict, Waiting};
use crate::turn::{self, Fate, fate};
use crate::{error, wake};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// Takes over a turn whose handler returned an awaitable; it starts now or when the disk has what it saw.
pub(crate) fn defer(
    engine: &Bound<'_, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    live: Live,
    awaitable: Bound<'_, PyAny>,
    (answer, context, tells, generation): (Answer, Bound<'_, PyAny>, Vec<Tell>, u32),
) -> PyResult<()> {
    let py = engine.py();
    let (ticket, revision) = (live.last_ticket, live.revision);
    let scope = Context::open(py, entity, revision, tells)?;
    wake::within(&context, || Context::enter(&scope, py))??;
    answer.advance(py, Phase::Running);
    entity.put(py, live, generation);
    let running = Running {
        answer: answer.clone_ref(py),
        awaitable: awaitable.unbind(),
        started: false,
        context: context.unbind(),
        scope,
        generation,
    };
    let deadline = answer.deadline(py);
    engine.get().begin(py, entity, running);
    pending::arm(py, engine.get(), run, deadline)?;
    match fate(&*run.journal, ticket) {
        Fate::Stored => start(engine, run, entity, false),
        Fate::Lost(failure) => {
            entity.forget(py, generation);
            give_up(engine, run, entity, error::storage(py, &failure), false)
        }
        Fate::Open => {
            let waiting = Waiting { ticket, entity: Arc::clone(entity), generation, answer, then: Then::Start };
            pending::wait(py, engine.get(), run, waiting)
        }
    }
}

/// Starts the handler of a held turn.
pub(crate) fn start(engine: &Bound<'_, Engine>, run: &Arc<Run>, entity: &Arc<Entity>, step: bool) -> PyResult<()> {
    let py = engine.py();
    let made = match &mut *entity.running.borrow_mut(py) {
        None => return Ok(()),
        Some(running) => {
            running.started = true;
            (running.awaitable.clone_ref(py), running.context.clone_ref(py))
        }
    };
    let (awaitable, context) = (made.0.into_bound(py), made.1.into_bound(py));
    let started = context::outside(|| make_task(engine, run, entity, &awaitable, &context));
    match started {
        Ok(task) => {
            if let Some(running) = &mut *entity.running.borrow_mut(py)
                && running.awaitable.is(&awaitable)
            {
                running.awaitable = task.unbind();
            }
            Ok(())
        }
        Err(failure) => {
            let discarded = discard(&awaitable);
            end(engine, run, entity, Err(failure), step).and(discarded)
        }
    }
}

fn make_task<'py>(
    engine: &Bound<'py, Engine>,
    run: &Run,
    entity: &Arc<Entity>,
    awaitable: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = engine.py();
    let asyncio = py.import("asyncio")?;
    let task = if asyncio.call_method1(intern!(py, "iscoroutine"), (awaitable,))?.is_truthy()? {
        let name = format!("ego {}/{}", entity.key.kind, entity.key.id);
        run.home.create_task(awaitable, &name, context)?
    } else {
        let named = PyDict::new(py);
        named.set_item("loop", &run.home.event_loop)?;
        wake::within(context, || asyncio.call_method("ensure_future", (awaitable,), Some(&named)))??
    };
    let landing = Callback::new(engine, Call::Land(Arc::clone(entity)))?;
    task.call_method1(intern!(py, "add_done_callback"), (landing,))?;
    Ok(task)
}

/// The task of an entity's handler is done.
pub(crate) fn land(
    engine: &Bound<'_, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    task: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = engine.py();
    let ours = entity.running.borrow(py).as_ref().is_some_and(|running| running.awaitable.is(task));
    // Marks an exception as seen in any case.
    let result = task.call_method0(intern!(py, "result"));
    if !ours {
        return Ok(());
    }
    end(engine, run, entity, result, false)
}

fn end(
    engine: &Bound<'_, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    result: PyResult<Bound<'_, PyAny>>,
    step: bool,
) -> PyResult<()> {
    let py = engine.py();
    let Some(running) = engine.get().end(py, entity) else { return Ok(()) };
    let mut tells = running.scope.get().close(py);
    let Some(mut live) = entity.slot.borrow_mut(py).take() else {
        let failure = error::about(py, "StorageError", &entity.key, "the entity was reset while its handler ran");
        let shown = pending::finish(engine, entity, &running.answer, Verdict::Lost(failure), step);
        return dispatch::pass_on(engine, run, entity).and(shown);
    };
    let concluded = match &result {
        Err(failure) => Err(failure.clone_ref(py)),
        Ok(result) => {
            let frame = Frame::new(entity, live.revision);
            let concluded = frame.run(|| turn::conclude(py, &*run.journal, entity, &mut live, result));
            tells.append(&mut frame.tells.borrow_mut());
            concluded
        }
    };
    let value = concluded.and_then(|()| turn::shown(py, &live));
    let ticket = live.last_ticket;
    entity.put(py, live, running.generation);
    let ended = Ended { ticket, generation: running.generation, value, tells };
    let concluded = dispatch::conclude(engine, run, entity, running.answer, ended, step);
    dispatch::pass_on(engine, run, entity).and(concluded)
}

/// The handler of a held turn never starts, because what it saw was lost.
pub(crate) fn give_up(
    engine: &Bound<'_, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    failure: PyErr,
    step: bool,
) -> PyResult<()> {
    let py = engine.py();
    let Some(running) = engine.get().end(py, entity) else { return Ok(()) };
    drop(running.scope.get().close(py));
    let discarded = discard(running.awaitable.bind(py));
    let shown = pending::finish(engine, entity, &running.answer, Verdict::Lost(failure), step);
    dispatch::pass_on(engine, run, entity).and(shown).and(discarded)
}

/// Lets go of an awaitable that nobody will await, without a warning where it can be told.
pub(crate) fn discard(awaitable: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = awaitable.py();
    for name in [intern!(py, "close"), intern!(py, "cancel")] {
        if let Some(method) = awaitable.getattr_opt(name)? {
            return match method.call0() {
                Err(failure) if error::ends_the_process(py, &failure) => Err(failure),
                _ => Ok(()),
            };
        }
    }
    Ok(())
}
