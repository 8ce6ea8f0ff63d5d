//! `async def` handlers: one task per handler, on the engine's loop.
//!
//! It starts only when everything that the handler saw is durable, since it may act on the outside. Its entity's turn
//! is held meanwhile; other entities go on.

use crate::context::{self, Context, Frame};
use crate::dispatch::{At, Deferred, Ended};
use crate::entity::Running;
use crate::pending::{self, Then, Verdict, Waiting};
use crate::run::{Call, Callback};
use crate::terms::Terms;
use crate::turn::{self, Carried, Fate, fate};
use crate::{error, residents};
use ego_answer::answer::{Answer, Phase};
use ego_answer::wake;
use pyo3::prelude::*;
use pyo3::{intern, types::PyDict};
use std::sync::Arc;

impl<'py> At<'_, 'py> {
    /// Takes over a turn whose handler returned an awaitable; it starts now or when the disk has what it saw.
    pub fn defer(
        self,
        deferred: Deferred<'py>,
        answer: Answer,
        terms: Option<&Arc<Terms>>,
        context: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let Self { py, engine, run, entity, .. } = self;
        let Deferred { live, awaitable, tells, generation } = deferred;
        if run.is_over.get(py) {
            let discarded = discard(&awaitable);
            return pending::give_up(py, entity, &answer, false).and(discarded);
        }
        let ticket = live.last_ticket;
        // A copy: whoever delivers what was told has entered the sender's context already.
        let prepared = context.call_method0(intern!(py, "copy")).and_then(|context| {
            let scope = Context::open(py, entity, live.revision, terms.cloned(), tells)?;
            match wake::within(&context, || Context::enter(&scope, py)).flatten() {
                Ok(()) => Ok((context.unbind(), scope)),
                Err(failure) => {
                    drop(scope.get().close(py));
                    Err(failure)
                }
            }
        });
        answer.advance(py, Phase::Running);
        entity.put(py, live, generation);
        let (context, scope) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                let discarded = discard(&awaitable);
                let ended = Ended { ticket, generation, value: Err(failure), tells: Vec::new() };
                let concluded = self.conclude(answer, ended, false);
                return self.pass_on().and(concluded).and(discarded);
            }
        };
        let held = answer.clone_ref(py);
        let awaitable = awaitable.unbind();
        let terms = terms.cloned();
        let running = Running { answer: held, awaitable, started: false, context, scope, terms, generation };
        engine.get().begin(py, entity, running);
        let armed = pending::arm(engine, run, answer.deadline(py));
        let begun = match fate(self.journal(), ticket) {
            Fate::Stored => self.start_at_home(),
            Fate::Lost(failure) => {
                entity.forget(py, generation);
                self.never_start(error::storage(py, &failure), false)
            }
            Fate::Open => {
                let waiting = Waiting { ticket, entity: Arc::clone(entity), generation, answer, then: Then::Start };
                pending::wait(engine, run, waiting)
            }
        };
        armed.and(begun)
    }

    /// Starts the handler of a held turn, on the engine's loop.
    fn start_at_home(self) -> PyResult<()> {
        let Self { py, engine, run, entity, .. } = self;
        if run.home.is_this_thread() {
            return self.start(false);
        }
        run.home.call_soon(py, Callback::new(engine, Call::Start(Arc::clone(entity)))?.bind(py))
    }

    /// Starts the handler of a held turn. Only on the loop's thread.
    pub fn start(self, step: bool) -> PyResult<()> {
        let Self { py, entity, .. } = self;
        let (awaitable, context) = match &mut *entity.running.borrow_mut(py) {
            None => return Ok(()),
            Some(running) => {
                running.started = true;
                (running.awaitable.bind(py).clone(), running.context.bind(py).clone())
            }
        };
        match context::outside(|| self.make_task(&awaitable, &context)) {
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
                self.end(Err(failure), step).and(discarded)
            }
        }
    }

    fn make_task(self, awaitable: &Bound<'py, PyAny>, context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Self { py, engine, run, entity, .. } = self;
        let asyncio = py.import("asyncio")?;
        let task = if asyncio.call_method1(intern!(py, "iscoroutine"), (awaitable,))?.is_truthy()? {
            run.home.create_task(awaitable, &format!("ego {}/{}", entity.key.kind, entity.key.id), context)?
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
    pub fn land(self, task: &Bound<'py, PyAny>) -> PyResult<()> {
        let ours = self.entity.running.borrow(self.py).as_ref().is_some_and(|running| running.awaitable.is(task));
        // Marks an exception as seen in any case.
        let result = task.call_method0(intern!(self.py, "result"));
        if ours { self.end(result, false) } else { Ok(()) }
    }

    fn end(self, result: PyResult<Bound<'py, PyAny>>, step: bool) -> PyResult<()> {
        let Self { py, engine, entity, .. } = self;
        let Some(running) = engine.get().end(py, entity) else { return Ok(()) };
        let mut tells = running.scope.get().close(py);
        let live = entity.slot.borrow_mut(py).take();
        if entity.watched.get(py) {
            residents::used(engine.get(), py, entity);
        }
        let concluded = if let Some(mut live) = live {
            let frame = Frame::new(entity, live.revision, running.terms.as_ref());
            let (journal, carried) = (self.journal(), Carried::default());
            let concluded = frame.run(|| match &running.terms {
                None => result.and_then(|result| turn::conclude(py, journal, entity, &mut live, &result, carried)),
                Some(terms) => turn::conclude_on_terms(py, journal, entity, &mut live, result, terms),
            });
            let value = concluded.and_then(|()| turn::shown(py, &live));
            tells.append(&mut frame.tells.borrow_mut());
            if value.is_err() {
                tells.clear();
            }
            let (ticket, generation) = (live.last_ticket, running.generation);
            entity.put(py, live, generation);
            self.conclude(running.answer, Ended { ticket, generation, value, tells }, step)
        } else {
            let failure = error::about(py, "StorageError", &entity.key, "the entity was reset while its handler ran");
            pending::finish(engine, entity, &running.answer, Verdict::Lost(failure), step)
        };
        self.pass_on().and(concluded)
    }

    /// The handler of a held turn never starts, because what it saw was lost.
    pub fn never_start(self, failure: PyErr, step: bool) -> PyResult<()> {
        let Some(running) = self.engine.get().end(self.py, self.entity) else { return Ok(()) };
        drop(running.scope.get().close(self.py));
        let discarded = discard(running.awaitable.bind(self.py));
        let shown = pending::finish(self.engine, self.entity, &running.answer, Verdict::Lost(failure), step);
        self.pass_on().and(shown).and(discarded)
    }
}

/// Lets go of an awaitable that nobody will await, without a warning where it can be told.
pub fn discard(awaitable: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = awaitable.py();
    for name in [intern!(py, "close"), intern!(py, "cancel")] {
        if let Some(method) = awaitable.getattr_opt(name)? {
            return match method.call0() {
                Err(failure) if ego_answer::error::ends_the_process(py, &failure) => Err(failure),
                _ => Ok(()),
            };
        }
    }
    Ok(())
}
