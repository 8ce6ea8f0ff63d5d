//! From a call to a turn: inline where the entity is idle, through its mailbox where it is not.
//!
//! Nothing on the way of a command to an idle entity allocates a task, a timer or a queue entry, unless the disk has to
//! be waited for.

use crate::answer::{Answer, Link, Phase};
use crate::context::{self, Frame, Tell};
use crate::engine::{Call, Callback, Engine, Mode, Run};
use crate::entity::{Entity, Live, Message, Wants};
use crate::fast::attached;
use crate::pending::{self, Then, Verdict, Waiting};
use crate::turn::{self, Fate, fate};
use crate::{error, logging, task, wake};
use ego_core::entities::mailbox::Full;
use ego_core::entities::slot::Entry;
use ego_core::journal::{Journal, Ticket};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// Commands of one entity that are run before the loop gets its turn.
const TURN_BUDGET: usize = 64;

/// Nanoseconds that a sender waits; none for as long as it takes.
pub(crate) type Patience = Option<u64>;

/// How a turn ended: what is shown once the ticket is settled, and what is told then.
pub(crate) struct Ended<'py> {
    pub(crate) ticket: Ticket,
    pub(crate) generation: u32,
    pub(crate) value: PyResult<Bound<'py, PyTuple>>,
    pub(crate) tells: Vec<Tell>,
}

/// A turn, as far as it came without waiting.
enum Step<'py> {
    Ended(Ended<'py>),
    /// The handler is an `async def` one.
    Deferred {
        live: Live,
        awaitable: Bound<'py, PyAny>,
        tells: Vec<Tell>,
        generation: u32,
    },
}

/// What a sender wants, borrowed.
#[derive(Clone, Copy)]
enum Wish<'a, 'py> {
    Command(&'a Bound<'py, PyAny>),
    State,
}

/// Sends a command and gives the awaitable of its answer. Called without pyo3's bookkeeping: whatever may let go of an
/// object happens in [`attached`].
#[inline]
pub(crate) fn send<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    command: &Bound<'py, PyAny>,
    patience: Patience,
) -> PyResult<Py<PyAny>> {
    entity.kind.check_command(command, &entity.key)?;
    let py = engine.py();
    let inner = engine.get();
    let journal = &*run.journal;
    let wish = Wish::Command(command);
    if inner.mode.get(py) != Mode::Open || journal.settled() == Ticket::MAX {
        return attached(|_| ask(engine, run, entity, wish, patience));
    }
    let (entry, generation) = entity.enter(py);
    let mut live = match entry {
        Entry::Live(live) if !matches!(fate(journal, live.last_ticket), Fate::Lost(_)) => live,
        Entry::Live(live) => return attached(|_| begin(engine, run, entity, Some(live), wish, patience)),
        Entry::Cold => return attached(|_| begin(engine, run, entity, None, wish, patience)),
        Entry::Taken => return attached(|_| enqueue(engine, run, entity, wish, patience)),
    };
    // The common way: nothing of this entity was lost.
    inner.tally.accepted.add(py, 1);
    let frame = Frame::new(entity, live.revision);
    let decided = frame.run(|| turn::decide(py, journal, entity, &mut live, command));
    if let Ok(None) = decided
        && frame.has_told_nothing()
    {
        let (ticket, value) = (live.last_ticket, turn::shown(py, &live));
        match fate(journal, ticket) {
            Fate::Stored => {
                live.last_ticket = 0;
                if let Some(next) = entity.put_and_pass_on(py, live, generation) {
                    attached(|_| run_waiting(engine, run, entity, next))?;
                }
                inner.tally.ok.add(py, 1);
                return Answer::done(py, value?).map(Answer::into_any);
            }
            Fate::Open => {
                if let Some(next) = entity.put_and_pass_on(py, live, generation) {
                    attached(|_| run_waiting(engine, run, entity, next))?;
                }
                let answer = Answer::writing(py, &run.home.event_loop, value?, deadline(patience))?;
                let given = answer.clone_ref(py);
                let then = Then::Show { tells: Vec::new(), rejected: false };
                let waiting = Waiting { ticket, entity: Arc::clone(entity), generation, answer, then };
                pending::wait(py, inner, run, waiting)?;
                return Ok(given.into_any());
            }
            Fate::Lost(_) => {}
        }
    }
    attached(|py| {
        let step = after(py, journal, entity, live, generation, decided, frame.tells.take());
        go_on(engine, run, entity, step, patience)
    })
}

/// Asks for `(state, revision)`.
pub(crate) fn state(
    engine: &Bound<'_, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    patience: Patience,
) -> PyResult<Py<PyAny>> {
    ask(engine, run, entity, Wish::State, patience)
}

fn ask<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    wish: Wish<'_, 'py>,
    patience: Patience,
) -> PyResult<Py<PyAny>> {
    let py = engine.py();
    engine.get().check_open(py)?;
    match entity.enter(py).0 {
        Entry::Live(live) => begin(engine, run, entity, Some(live), wish, patience),
        Entry::Cold => begin(engine, run, entity, None, wish, patience),
        Entry::Taken => enqueue(engine, run, entity, wish, patience),
    }
}

/// Takes the turn that was just entered.
#[inline(never)]
fn begin<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    live: Option<Live>,
    wish: Wish<'_, 'py>,
    patience: Patience,
) -> PyResult<Py<PyAny>> {
    let py = engine.py();
    engine.get().tally.accepted.add(py, 1);
    let step = take_turn(py, run, entity, live, wish);
    go_on(engine, run, entity, step, patience)
}

#[inline(never)]
fn go_on<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    step: Step<'py>,
    patience: Patience,
) -> PyResult<Py<PyAny>> {
    let py = engine.py();
    match step {
        Step::Ended(ended) => {
            let answer = at_once(engine, run, entity, ended, patience);
            pass_on(engine, run, entity).and(answer).map(Answer::into_any)
        }
        Step::Deferred { live, awaitable, tells, generation } => {
            let answer = Answer::pending(py, &run.home.event_loop, Phase::Running, deadline(patience))?;
            let context = wake::copy_context(py)?;
            link(py, entity, &answer)?;
            let given = answer.clone_ref(py);
            task::defer(engine, run, entity, live, awaitable, (answer, context, tells, generation))?;
            Ok(given.into_any())
        }
    }
}

fn deadline(patience: Patience) -> u64 {
    patience.map_or(0, |nanos| wake::now_for(nanos).saturating_add(nanos).max(1))
}

/// One turn, with the content that was taken out or none.
fn take_turn<'py>(
    py: Python<'py>,
    run: &Run,
    entity: &Arc<Entity>,
    live: Option<Live>,
    wish: Wish<'_, 'py>,
) -> Step<'py> {
    let journal = &*run.journal;
    let mut generation = entity.generation(py);
    let live = live.and_then(|mut live| match fate(journal, live.last_ticket) {
        Fate::Open => Some(live),
        Fate::Stored => {
            live.last_ticket = 0;
            Some(live)
        }
        Fate::Lost(_) => {
            entity.forget(py, generation);
            generation = entity.generation(py);
            None
        }
    });
    let nothing = |failure| Step::Ended(Ended { ticket: 0, generation, value: Err(failure), tells: Vec::new() });
    let loaded = match live {
        Some(live) => Ok(live),
        None => poison(py, run, wish).and_then(|()| turn::load(py, journal, entity)),
    };
    let mut live = match loaded {
        Ok(live) => live,
        Err(failure) => return nothing(failure),
    };
    let Wish::Command(command) = wish else {
        let (ticket, value) = (live.last_ticket, turn::shown(py, &live));
        entity.put(py, live, generation);
        return Step::Ended(Ended { ticket, generation, value, tells: Vec::new() });
    };
    let frame = Frame::new(entity, live.revision);
    let decided = match poison(py, run, wish) {
        Ok(()) => frame.run(|| turn::decide(py, journal, entity, &mut live, command)),
        Err(failure) => Err(failure),
    };
    after(py, journal, entity, live, generation, decided, frame.tells.take())
}

/// What a decision comes to; what was taken out goes back, unless the handler is deferred.
#[inline(never)]
fn after<'py>(
    py: Python<'py>,
    journal: &dyn Journal,
    entity: &Entity,
    mut live: Live,
    generation: u32,
    decided: PyResult<Option<Bound<'py, PyAny>>>,
    tells: Vec<Tell>,
) -> Step<'py> {
    if let Fate::Stored = fate(journal, live.last_ticket) {
        live.last_ticket = 0;
    }
    let ticket = live.last_ticket;
    let (value, tells) = match decided {
        Ok(Some(awaitable)) => return Step::Deferred { live, awaitable, tells, generation },
        Ok(None) => (turn::shown(py, &live), tells),
        Err(failure) => (Err(failure), Vec::new()),
    };
    entity.put(py, live, generation);
    Step::Ended(Ended { ticket, generation, value, tells })
}

/// Refuses a command of a store that takes no more writes; reading goes on.
#[inline]
fn poison(py: Python<'_>, run: &Run, wish: Wish<'_, '_>) -> PyResult<()> {
    if run.journal.settled() != Ticket::MAX || matches!(wish, Wish::State) {
        return Ok(());
    }
    match run.journal.poisoned() {
        Some(failure) => Err(error::storage(py, &failure)),
        None => Ok(()),
    }
}

/// The answer of a turn that ended during the call.
fn at_once<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    ended: Ended<'py>,
    patience: Patience,
) -> PyResult<Answer> {
    let py = engine.py();
    if let (Fate::Stored, Ok(value), true) = (fate(&*run.journal, ended.ticket), &ended.value, ended.tells.is_empty()) {
        let tally = &engine.get().tally;
        tally.ok.add(py, 1);
        return Answer::done(py, value.clone());
    }
    let answer = Answer::pending(py, &run.home.event_loop, Phase::Running, deadline(patience))?;
    conclude(engine, run, entity, answer.clone_ref(py), ended, false)?;
    Ok(answer)
}

/// Lays the answer of an ended turn down and shows it once its ticket is settled.
pub(crate) fn conclude<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    answer: Answer,
    ended: Ended<'py>,
    step: bool,
) -> PyResult<()> {
    let py = engine.py();
    let Ended { ticket, generation, value, tells } = ended;
    let rejected = value.is_err();
    let tells = if rejected { Vec::new() } else { tells };
    answer.prepare(py, value.map(Bound::into_any));
    match fate(&*run.journal, ticket) {
        Fate::Open => {
            let then = Then::Show { tells, rejected };
            pending::wait(
                py,
                engine.get(),
                run,
                Waiting { ticket, entity: Arc::clone(entity), generation, answer, then },
            )
        }
        Fate::Stored => {
            release(engine, run, tells)?;
            pending::finish(engine, entity, &answer, if rejected { Verdict::Rejected } else { Verdict::Ok }, step)
        }
        Fate::Lost(failure) => {
            entity.forget(py, generation);
            pending::finish(engine, entity, &answer, Verdict::Lost(error::storage(py, &failure)), step)
        }
    }
}

/// Lets a wish wait for a busy entity.
#[cold]
fn enqueue<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    wish: Wish<'_, 'py>,
    patience: Patience,
) -> PyResult<Py<PyAny>> {
    let py = engine.py();
    check_deadlock(py, entity)?;
    let answer = Answer::pending(py, &run.home.event_loop, Phase::Queued, deadline(patience))?;
    let context = wake::copy_context(py)?;
    let wants = match wish {
        Wish::Command(command) => Wants::Command(command.clone().unbind()),
        Wish::State => Wants::State,
    };
    put_in_mailbox(engine, run, entity, Message { wants, answer: answer.clone_ref(py), context: context.unbind() })?;
    link(py, entity, &answer)?;
    Ok(answer.into_any())
}

fn put_in_mailbox(engine: &Bound<'_, Engine>, run: &Run, entity: &Arc<Entity>, message: Message) -> PyResult<()> {
    let py = engine.py();
    let inner = engine.get();
    let deadline = message.answer.deadline(py);
    let refused = entity.slot.borrow_mut(py).wait(message, inner.mailbox_capacity);
    if let Err(Full(message)) = refused {
        drop(message);
        let waiting = format!("{} commands wait already, which is all that its mailbox holds", inner.mailbox_capacity);
        let capacity = inner.mailbox_capacity.into_pyobject(py)?.into_any();
        return Err(error::with(py, "MailboxFullError", &entity.key, &waiting, &[("capacity", capacity)]));
    }
    inner.tally.accepted.add(py, 1);
    inner.tally.queued.add(py, 1);
    pending::arm(py, inner, run, deadline)
}

/// Connects an answer that is waited for to its entity and to the entity whose handler sent it.
fn link(py: Python<'_>, entity: &Arc<Entity>, answer: &Answer) -> PyResult<()> {
    let sender = context::waiting_sender(py)?;
    if let Some(sender) = &sender {
        sender.waits(py, entity);
    }
    answer.link(py, Link { entity: Arc::clone(entity), sender });
    Ok(())
}

/// Refuses a wish to a busy entity that waits for the sender itself.
fn check_deadlock(py: Python<'_>, entity: &Arc<Entity>) -> PyResult<()> {
    let mut chain = context::stack();
    if let Some(index) = chain.iter().position(|held| Arc::ptr_eq(held, entity)) {
        chain.truncate(index + 1);
        chain.reverse();
        chain.push(Arc::clone(entity));
    } else if let Some(sender) = context::waiting_sender(py)?
        && let Some(way) = entity.way_to(py, &sender)
    {
        chain = vec![sender];
        chain.extend(way);
    } else {
        return Ok(());
    }
    let keys: Vec<_> = chain.iter().map(|held| &held.key).collect();
    Err(error::deadlock(py, &keys))
}

/// For the holder of a turn: runs what waits in the mailbox, then lets go. Past its budget it goes on in the loop's next
/// round.
#[inline]
pub(crate) fn pass_on(engine: &Bound<'_, Engine>, run: &Arc<Run>, entity: &Arc<Entity>) -> PyResult<()> {
    let next = entity.slot.borrow_mut(engine.py()).next_or_leave();
    match next {
        None => Ok(()),
        Some(next) => run_waiting(engine, run, entity, next),
    }
}

#[cold]
fn run_waiting(engine: &Bound<'_, Engine>, run: &Arc<Run>, entity: &Arc<Entity>, first: Message) -> PyResult<()> {
    let py = engine.py();
    let tally = &engine.get().tally;
    let mut next = Some(first);
    let mut budget = TURN_BUDGET;
    let mut result = Ok(());
    while let Some(Message { wants, answer, context }) = next {
        tally.queued.sub(py, 1);
        answer.advance(py, Phase::Running);
        let live = entity.slot.borrow_mut(py).take();
        let context = context.into_bound(py);
        let command = match wants {
            Wants::Command(command) => Some(command.into_bound(py)),
            Wants::State => None,
        };
        let wish = command.as_ref().map_or(Wish::State, Wish::Command);
        let concluded = match wake::within(&context, || take_turn(py, run, entity, live, wish)) {
            Ok(Step::Ended(ended)) => conclude(engine, run, entity, answer, ended, false),
            Ok(Step::Deferred { live, awaitable, tells, generation }) => {
                return task::defer(engine, run, entity, live, awaitable, (answer, context, tells, generation))
                    .and(result);
            }
            Err(failure) => answer.fail(py, failure, false),
        };
        result = result.and(concluded);
        budget -= 1;
        if budget == 0 {
            let go_on = Callback::new(engine, Call::PassOn(Arc::clone(entity)))?;
            return run.home.call_soon(py, go_on.bind(py)).and(result);
        }
        next = entity.slot.borrow_mut(py).next_or_leave();
    }
    result
}

/// Sends a command without an answer; from a handler, once the handler's own unit is durable.
pub(crate) fn tell<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    command: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = engine.py();
    engine.get().check_open(py)?;
    entity.kind.check_command(command, &entity.key)?;
    if context::is_inside(py)? {
        let (engine, command) = (engine.clone().unbind(), command.clone().unbind());
        let context = wake::copy_context(py)?.unbind();
        context::keep(py, Tell { engine, entity: Arc::clone(entity), command, context })?;
        return Ok(());
    }
    tell_now(engine, run, entity, command, || wake::copy_context(py))
}

fn tell_now<'py>(
    engine: &Bound<'py, Engine>,
    run: &Arc<Run>,
    entity: &Arc<Entity>,
    command: &Bound<'py, PyAny>,
    context: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = engine.py();
    let inner = engine.get();
    let entry = entity.slot.borrow_mut(py).enter();
    let live = match entry {
        Entry::Live(live) => Some(live),
        Entry::Cold => None,
        Entry::Taken => {
            let answer = Answer::pending(py, &run.home.event_loop, Phase::Queued, 0)?;
            answer.set_told(py);
            let wants = Wants::Command(command.clone().unbind());
            return put_in_mailbox(engine, run, entity, Message { wants, answer, context: context()?.unbind() });
        }
    };
    inner.tally.accepted.add(py, 1);
    let step = take_turn(py, run, entity, live, Wish::Command(command));
    let answer = Answer::pending(py, &run.home.event_loop, Phase::Running, 0)?;
    answer.set_told(py);
    match step {
        Step::Ended(ended) => {
            let concluded = conclude(engine, run, entity, answer, ended, false);
            pass_on(engine, run, entity).and(concluded)
        }
        Step::Deferred { live, awaitable, tells, generation } => {
            task::defer(engine, run, entity, live, awaitable, (answer, context()?, tells, generation))
        }
    }
}

/// Puts what a handler told on its way, now that the handler's unit is durable.
pub(crate) fn release(engine: &Bound<'_, Engine>, run: &Run, tells: Vec<Tell>) -> PyResult<()> {
    if tells.is_empty() {
        return Ok(());
    }
    let py = engine.py();
    engine.get().outgoing.borrow_mut(py).extend(tells);
    if !run.pump_is_due.get(py) {
        run.pump_is_due.set(py, true);
        run.home.call_soon(py, run.callbacks.pump.bind(py))?;
    }
    Ok(())
}

/// Delivers what was told, as much as fits into one round of the loop.
pub(crate) fn pump(engine: &Bound<'_, Engine>, run: &Arc<Run>) -> PyResult<()> {
    let py = engine.py();
    run.pump_is_due.set(py, false);
    for _ in 0..TURN_BUDGET {
        let next = engine.get().outgoing.borrow_mut(py).pop_front();
        let Some(tell) = next else { break };
        let to = format!("{}/{}", tell.entity.key.kind, tell.entity.key.id);
        if let Err(failure) = deliver(py, tell) {
            if error::ends_the_process(py, &failure) {
                run.home.call_soon(py, run.callbacks.pump.bind(py))?;
                return Err(failure);
            }
            logging::exception(py, &format!("a command told to {to} was not accepted"), failure);
        }
    }
    if engine.get().outgoing.borrow(py).is_empty() {
        return engine.get().check_drained(py);
    }
    run.pump_is_due.set(py, true);
    run.home.call_soon(py, run.callbacks.pump.bind(py))
}

fn deliver(py: Python<'_>, tell: Tell) -> PyResult<()> {
    let engine = tell.engine.bind(py);
    let run = engine.get().running(py)?;
    if engine.get().mode.get(py) == Mode::Stopped {
        return Err(error::not_started(py, "the engine was stopped before what a handler told was sent"));
    }
    let entity = engine.get().current(py, &tell.entity);
    let context = tell.context.bind(py).clone();
    wake::within(&context.clone(), || tell_now(engine, &run, &entity, tell.command.bind(py), || Ok(context)))?
}
