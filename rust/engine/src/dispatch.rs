//! From a call to a turn: inline where the entity is idle, through its mailbox where it is not.
//!
//! Nothing on the way of a command to an idle entity allocates a task, a timer or a queue entry, unless the disk has to
//! be waited for.

use crate::context::{self, Frame, Tell};
use crate::engine::{Engine, Mode};
use crate::entity::{Entity, Live, Message, Sent, Wants};
use crate::held::Lack;
use crate::pending::{self, Then, Verdict, Waiting};
use crate::replay::Replay;
use crate::run::{Call, Callback, Run};
use crate::terms::{Given, Terms};
use crate::turn::{self, Decided, Fate, fate};
use crate::{error, logging, residents};
use ego_answer::answer::{Answer, Phase};
use ego_answer::fast::attached;
use ego_answer::wake;
use ego_core::entities::mailbox::Full;
use ego_core::entities::slot::Entry;
use ego_core::io::Clock;
use ego_core::journal::{Journal, Ticket};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// Commands that are run before the loop gets its turn.
const TURN_BUDGET: usize = 64;

/// An entity of an engine that runs.
#[derive(Clone, Copy)]
pub struct At<'a, 'py> {
    pub py: Python<'py>,
    pub engine: &'a Bound<'py, Engine>,
    pub run: &'a Arc<Run>,
    pub entity: &'a Arc<Entity>,
    /// The loop of a caller elsewhere than on the engine's loop; Python's `None` for a thread without one.
    pub caller: Option<&'a Bound<'py, PyAny>>,
}

/// Whether and how long somebody waits for an answer.
#[derive(Clone, Copy)]
pub enum Patience {
    Nanos(u64),
    ForEver,
    /// Nobody waits: exceptions go to the log.
    Told,
}

/// What a sender wants, borrowed.
#[derive(Clone, Copy)]
pub enum Wish<'a, 'py> {
    Command(&'a Bound<'py, PyAny>, Option<&'a Arc<Terms>>),
    State,
}

impl<'a, 'py> Wish<'a, 'py> {
    fn of(wants: &'a Wants, py: Python<'py>) -> Self {
        match wants {
            Wants::Command(command, terms) => Self::Command(command.bind(py), terms.as_ref()),
            Wants::State => Self::State,
        }
    }

    fn wants(self) -> Wants {
        match self {
            Self::Command(command, terms) => Wants::Command(command.clone().unbind(), terms.cloned()),
            Self::State => Wants::State,
        }
    }

    fn terms(self) -> Option<&'a Arc<Terms>> {
        match self {
            Wish::Command(_, terms) => terms,
            Wish::State => None,
        }
    }
}

/// How a turn ended: what is shown once the ticket is settled, and what is told then.
pub struct Ended<'py> {
    pub ticket: Ticket,
    pub generation: u32,
    pub value: PyResult<Bound<'py, PyTuple>>,
    pub tells: Vec<Tell>,
}

/// A turn whose handler returned an awaitable.
pub struct Deferred<'py> {
    pub live: Live,
    pub awaitable: Bound<'py, PyAny>,
    pub tells: Vec<Tell>,
    pub generation: u32,
}

/// A turn, as far as it came without waiting.
enum Step<'py> {
    Ended(Ended<'py>),
    Deferred(Deferred<'py>),
    /// Nothing was run yet, and what was taken out is back.
    Lacking(Lack),
}

fn deadline(clock: &Clock, patience: Patience) -> u64 {
    match patience {
        Patience::Nanos(nanos) => clock.now_for(nanos).saturating_add(nanos).max(1),
        Patience::ForEver | Patience::Told => 0,
    }
}

impl<'a, 'py> At<'a, 'py> {
    /// The journal of the entity's kind.
    #[inline]
    pub fn journal(self) -> &'a dyn Journal {
        &*self.run.lane(&self.entity.kind).journal
    }

    /// Sends a command and gives the awaitable of its answer. Called without pyo3's bookkeeping: whatever may let go of
    /// an object happens in [`attached`].
    #[inline]
    pub fn send(
        self,
        command: &Bound<'py, PyAny>,
        patience: Patience,
        given: Option<&Given<'_, 'py>>,
    ) -> PyResult<Answer> {
        let entity = self.entity;
        entity.kind.check_command(command, &entity.key)?;
        if given.is_none() && !context::may_be_inside() {
            return self.send_on_terms(command, None, patience);
        }
        self.send_carrying(command, patience, given)
    }

    /// The same for a command that carries something, or that may be sent by a handler. A copy of its own: the way of a
    /// plain one stays short.
    #[inline(never)]
    fn send_carrying(
        self,
        command: &Bound<'py, PyAny>,
        patience: Patience,
        given: Option<&Given<'_, 'py>>,
    ) -> PyResult<Answer> {
        let entity = self.entity;
        let terms = Terms::of(given.unwrap_or(&Given::default()), command, &entity.kind, &entity.key)?;
        self.send_on_terms(command, terms.as_ref(), patience)
    }

    #[inline(always)]
    fn send_on_terms(
        self,
        command: &Bound<'py, PyAny>,
        terms: Option<&Arc<Terms>>,
        patience: Patience,
    ) -> PyResult<Answer> {
        let Self { py, engine, run, entity, .. } = self;
        let (inner, lane, wish) = (engine.get(), run.lane(&entity.kind), Wish::Command(command, terms));
        let journal = &*lane.journal;
        let is_open = inner.mode.get(py) == Mode::Open && journal.settled() != Ticket::MAX && !lane.is_full(py);
        if !is_open || self.caller.is_some() {
            return attached(|_| self.ask(wish, patience));
        }
        let (entry, generation) = entity.enter(py);
        let mut live = match entry {
            Entry::Live(live) if !matches!(fate(journal, live.last_ticket), Fate::Lost(_)) => live,
            Entry::Live(live) => return attached(|_| self.begin(Some(live), wish, patience, None)),
            Entry::Cold => return attached(|_| self.begin_cold(wish, patience, None)),
            Entry::Taken => return attached(|_| self.enqueue(wish, patience, None)),
        };
        // The common way: nothing of this entity was lost.
        if entity.watched.get(py) {
            residents::used(inner, py, entity);
        }
        inner.house.accepted.add(py, 1);
        let frame = Frame::new(entity, live.revision, terms);
        let decided = frame.run(|| match terms {
            None => turn::decide(py, journal, entity, &mut live, command),
            Some(terms) => turn::decide_on_terms(py, journal, entity, &mut live, command, terms),
        });
        let fate = fate(journal, live.last_ticket);
        if !matches!(decided, Ok(Decided::Done)) || !frame.has_told_nothing() || matches!(fate, Fate::Lost(_)) {
            return attached(|_| {
                let step = self.after(live, generation, decided, frame.tells.take());
                self.go_on(step, wish, patience, None)
            });
        }
        let (ticket, value) = (live.last_ticket, turn::shown(py, &live));
        let stored = matches!(fate, Fate::Stored);
        live.last_ticket = if stored { 0 } else { ticket };
        let next = entity.put_and_pass_on(py, live, generation);
        if stored {
            inner.house.ok.add(py, 1);
            if let Some(next) = next {
                attached(|_| self.run_waiting(next))?;
            }
            return Answer::done(py, value?);
        }
        let deadline = deadline(&entity.kind.house.clock, patience);
        let answer = Answer::writing(py, &run.home.event_loop, value?, deadline)?;
        let then = Then::Show { tells: Vec::new(), rejected: false };
        let waiting = Waiting { ticket, entity: Arc::clone(entity), generation, answer: answer.clone_ref(py), then };
        let waits = pending::wait(engine, run, waiting);
        if let Some(next) = next {
            // Behind it: who waits is in the order of tickets.
            attached(|_| self.run_waiting(next))?;
        }
        waits.map(|()| answer)
    }

    /// Asks for something in whatever state engine and entity are.
    pub fn ask(self, wish: Wish<'_, 'py>, patience: Patience) -> PyResult<Answer> {
        self.engine.get().check_open(self.py)?;
        self.ask_in(wish, patience, None)
    }

    fn ask_in(self, wish: Wish<'_, 'py>, patience: Patience, context: Option<&Bound<'py, PyAny>>) -> PyResult<Answer> {
        match self.entity.enter(self.py).0 {
            Entry::Live(live) => self.begin(Some(live), wish, patience, context),
            Entry::Cold => self.begin_cold(wish, patience, context),
            Entry::Taken => self.enqueue(wish, patience, context),
        }
    }

    /// Takes the turn that was just entered.
    #[inline(never)]
    fn begin(
        self,
        live: Option<Live>,
        wish: Wish<'_, 'py>,
        patience: Patience,
        context: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Answer> {
        self.engine.get().house.accepted.add(self.py, 1);
        let step = self.take_turn(live, wish);
        self.go_on(step, wish, patience, context)
    }

    /// Takes the turn of an entity that is not in memory.
    #[cold]
    fn begin_cold(
        self,
        wish: Wish<'_, 'py>,
        patience: Patience,
        context: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Answer> {
        let Self { py, engine, entity, .. } = self;
        if !entity.away.get(py) {
            return self.begin(None, wish, patience, context);
        }
        // It has left memory since the caller asked where it is: while Python looked at the command, another came.
        let next = entity.slot.borrow_mut(py).next_or_leave();
        drop(next);
        let current = engine.get().current(py, entity);
        At { entity: &current, ..self }.ask_in(wish, patience, context)
    }

    #[inline(never)]
    fn go_on(
        self,
        step: Step<'py>,
        wish: Wish<'_, 'py>,
        patience: Patience,
        context: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Answer> {
        let answer = self.answer(Phase::Running, patience)?;
        let given = answer.clone_ref(self.py);
        match step {
            Step::Ended(ended) => {
                let concluded = self.conclude(answer, ended, false);
                self.pass_on().and(concluded)?;
            }
            Step::Deferred(deferred) => {
                let context = context.map_or_else(|| wake::copy_context(self.py), |held| Ok(held.clone()))?;
                self.link(&answer)?;
                self.defer(deferred, answer, wish.terms(), context)?;
            }
            Step::Lacking(lack) => {
                let context = context.map_or_else(|| wake::copy_context(self.py), |held| Ok(held.clone()))?.unbind();
                answer.advance(self.py, Phase::Queued);
                let linked = self.link(&answer);
                let armed = pending::arm(self.engine, self.run, answer.deadline(self.py));
                self.hold(lack, Message { wants: wish.wants(), answer, context }).and(linked).and(armed)?;
            }
        }
        Ok(given)
    }

    fn answer(self, phase: Phase, patience: Patience) -> PyResult<Answer> {
        let answer = match self.caller {
            None => Answer::pending(
                self.py,
                &self.run.home.event_loop,
                phase,
                deadline(&self.entity.kind.house.clock, patience),
            )?,
            Some(event_loop) => {
                Answer::elsewhere(self.py, event_loop, phase, deadline(&self.entity.kind.house.clock, patience))?
            }
        };
        if matches!(patience, Patience::Told) {
            answer.set_told(self.py);
        }
        Ok(answer)
    }

    /// One turn, with the content that was taken out or none.
    fn take_turn(self, live: Option<Live>, wish: Wish<'_, 'py>) -> Step<'py> {
        let Self { py, entity, .. } = self;
        let mut generation = entity.generation(py);
        let live = live.filter(|live| {
            let lost = matches!(fate(self.journal(), live.last_ticket), Fate::Lost(_));
            if lost {
                entity.forget(py, generation);
                generation = entity.generation(py);
            }
            !lost
        });
        if matches!(wish, Wish::Command(..)) && self.run.lane(&entity.kind).is_full(py) {
            if let Some(live) = live {
                entity.put(py, live, generation);
            }
            return Step::Lacking(Lack::Room);
        }
        let ready = self.check_poison(wish).and_then(|()| match live {
            Some(live) => {
                if entity.watched.get(py) {
                    residents::used(self.engine.get(), py, entity);
                }
                Ok(Ok(live))
            }
            None => self.load(),
        });
        let mut live = match ready {
            Ok(Ok(live)) => live,
            Ok(Err(replay)) => return Step::Lacking(Lack::Entity(replay)),
            Err(failure) => {
                let ended = Ended { ticket: 0, generation, value: Err(failure), tells: Vec::new() };
                return Step::Ended(ended);
            }
        };
        let (frame, journal) = (Frame::new(entity, live.revision, wish.terms()), self.journal());
        let decided = match wish {
            Wish::State => Ok(Decided::Done),
            Wish::Command(command, None) => frame.run(|| turn::decide(py, journal, entity, &mut live, command)),
            Wish::Command(command, Some(terms)) => {
                frame.run(|| turn::decide_on_terms(py, journal, entity, &mut live, command, terms))
            }
        };
        self.after(live, generation, decided, frame.tells.take())
    }

    /// Brings the entity into memory, as far as that is possible without waiting.
    fn load(self) -> PyResult<Result<Live, Replay>> {
        let mut replay = Replay::begin(self.py, self.entity)?;
        if !replay.read_now(self.py, self.journal(), self.entity)? {
            return Ok(Err(replay));
        }
        residents::came(self.engine, self.run, self.entity)?;
        Ok(Ok(replay.live))
    }

    /// What a decision comes to; what was taken out goes back, unless the handler is deferred.
    #[inline(never)]
    fn after(self, mut live: Live, generation: u32, decided: PyResult<Decided<'py>>, tells: Vec<Tell>) -> Step<'py> {
        if let Fate::Stored = fate(self.journal(), live.last_ticket) {
            live.last_ticket = 0;
        }
        let mut ticket = live.last_ticket;
        let (value, tells) = match decided {
            Ok(Decided::Deferred(awaitable)) => {
                return Step::Deferred(Deferred { live, awaitable, tells, generation });
            }
            Ok(Decided::Lacking(lack)) => {
                self.entity.put(self.py, live, generation);
                return Step::Lacking(lack);
            }
            Ok(Decided::Done) => (turn::shown(self.py, &live), tells),
            Ok(Decided::Repeated(answer, recorded)) => {
                ticket = recorded;
                (answer, tells)
            }
            Err(failure) => (Err(failure), Vec::new()),
        };
        self.entity.put(self.py, live, generation);
        Step::Ended(Ended { ticket, generation, value, tells })
    }

    /// Refuses a command of a store that takes no more writes; reading goes on.
    fn check_poison(self, wish: Wish<'_, '_>) -> PyResult<()> {
        if self.journal().settled() != Ticket::MAX || matches!(wish, Wish::State) {
            return Ok(());
        }
        self.journal().poisoned().map_or(Ok(()), |failure| Err(error::storage(self.py, &failure)))
    }

    /// Lays the answer of an ended turn down and shows it once its ticket is settled.
    pub fn conclude(self, answer: Answer, ended: Ended<'py>, step: bool) -> PyResult<()> {
        let Self { py, engine, run, entity, .. } = self;
        let Ended { ticket, generation, value, tells } = ended;
        let rejected = value.is_err();
        answer.prepare(py, value.map(Bound::into_any));
        match fate(self.journal(), ticket) {
            Fate::Open => {
                answer.unlink(py);
                let then = Then::Show { tells, rejected };
                let waiting = Waiting { ticket, entity: Arc::clone(entity), generation, answer, then };
                pending::wait(engine, run, waiting)
            }
            Fate::Stored => {
                release(engine, run, tells)?;
                let verdict = if rejected { Verdict::Rejected } else { Verdict::Ok };
                pending::finish(engine, entity, &answer, verdict, step)
            }
            Fate::Lost(failure) => {
                entity.lose(py, ticket, generation);
                pending::finish(engine, entity, &answer, Verdict::Lost(error::storage(py, &failure)), step)
            }
        }
    }

    /// Lets a wish wait for a busy entity.
    #[cold]
    fn enqueue(self, wish: Wish<'_, 'py>, patience: Patience, context: Option<&Bound<'py, PyAny>>) -> PyResult<Answer> {
        let Self { py, engine, run, entity, .. } = self;
        let inner = engine.get();
        if !matches!(patience, Patience::Told) {
            self.check_deadlock()?;
        }
        let answer = self.answer(Phase::Queued, patience)?;
        let context = context.map_or_else(|| wake::copy_context(py), |held| Ok(held.clone()))?.unbind();
        let message = Message { wants: wish.wants(), answer: answer.clone_ref(py), context };
        let refused = entity.slot.borrow_mut(py).wait(message, inner.mailbox_capacity);
        if let Err(Full(message)) = refused {
            drop(message);
            let capacity = inner.mailbox_capacity;
            let text = format!("{capacity} commands wait already, which is all that its mailbox holds");
            let fact = ("capacity", capacity.into_pyobject(py)?.into_any());
            return Err(error::with(py, "MailboxFullError", &entity.key, &text, &[fact]));
        }
        inner.house.accepted.add(py, 1);
        inner.house.queued.add(py, 1);
        inner.wait_for(py, entity);
        self.link(&answer)?;
        pending::arm(engine, run, answer.deadline(py))?;
        Ok(answer)
    }

    /// Connects an answer that is waited for to its entity and to the entity whose handler sent it.
    fn link(self, answer: &Answer) -> PyResult<()> {
        let sender = if answer.is_told(self.py) { None } else { context::waiting_sender(self.py)? };
        if let Some(sender) = &sender {
            let waits = &sender.kind.house.waits;
            waits.borrow_mut(self.py).waits(sender.address(), self.entity.address());
        }
        answer.link(self.py, Box::new(Sent { to: Arc::clone(self.entity), by: sender }));
        Ok(())
    }

    /// Refuses a wish to a busy entity that waits for the sender itself.
    pub fn check_deadlock(self) -> PyResult<()> {
        let Self { py, engine, entity, .. } = self;
        let mut chain = context::stack();
        if let Some(index) = chain.iter().position(|held| Arc::ptr_eq(held, entity)) {
            chain.truncate(index + 1);
            chain.reverse();
            chain.push(Arc::clone(entity));
        } else if let Some(sender) = context::waiting_sender(py)?
            && let Some(way) = engine.get().way(py, entity, &sender)
        {
            chain = vec![sender];
            chain.extend(way);
        } else {
            return Ok(());
        }
        let keys: Vec<_> = chain.iter().map(|held| &held.key).collect();
        Err(error::deadlock(py, &keys))
    }

    /// For the holder of a turn: runs what waits in the mailbox, then lets go.
    pub fn pass_on(self) -> PyResult<()> {
        let next = self.entity.slot.borrow_mut(self.py).next_or_leave();
        if let Some(next) = next {
            return self.run_waiting(next);
        }
        self.engine.get().wait_no_more(self.py, self.entity);
        residents::idle(self.engine.get(), self.py, self.run, self.entity);
        Ok(())
    }

    /// Runs messages; past its budget it goes on in the loop's next round.
    #[cold]
    fn run_waiting(self, first: Message) -> PyResult<()> {
        let Self { py, engine, run, entity, .. } = self;
        let mut next = Some(first);
        let mut budget = TURN_BUDGET;
        let mut result = Ok(());
        while let Some(message) = next {
            engine.get().house.queued.sub(py, 1);
            message.answer.advance(py, Phase::Running);
            let live = entity.slot.borrow_mut(py).take();
            let (wish, context) = (Wish::of(&message.wants, py), message.context.bind(py));
            let concluded = match wake::within(context, || self.take_turn(live, wish)) {
                Ok(Step::Ended(ended)) => self.conclude(message.answer, ended, false),
                Ok(Step::Deferred(deferred)) => {
                    let (answer, context) = (message.answer.clone_ref(py), context.clone());
                    return self.defer(deferred, answer, wish.terms(), context).and(result);
                }
                Ok(Step::Lacking(lack)) => {
                    message.answer.advance(py, Phase::Queued);
                    return self.hold(lack, message).and(result);
                }
                Err(failure) => message.answer.fail(py, failure, false),
            };
            result = result.and(concluded);
            budget -= 1;
            if budget == 0 {
                let go_on = Callback::new(engine, Call::PassOn(Arc::clone(entity)))?;
                return run.home.call_soon(py, go_on.bind(py)).and(result);
            }
            next = entity.slot.borrow_mut(py).next_or_leave();
        }
        engine.get().wait_no_more(py, entity);
        residents::idle(engine.get(), py, run, entity);
        result
    }

    /// Sends a command without an answer; from a handler, once the handler's own unit is durable.
    pub fn tell(self, command: &Bound<'py, PyAny>) -> PyResult<()> {
        let Self { py, engine, entity, .. } = self;
        engine.get().check_open(py)?;
        entity.kind.check_command(command, &entity.key)?;
        let terms = Terms::of(&Given::default(), command, &entity.kind, &entity.key)?;
        if !context::is_inside(py)? {
            return self.ask_in(Wish::Command(command, None), Patience::Told, None).map(drop);
        }
        context::keep(
            py,
            Tell {
                engine: engine.clone().unbind(),
                entity: Arc::clone(entity),
                command: command.clone().unbind(),
                terms,
                context: wake::copy_context(py)?.unbind(),
            },
        )
    }
}

/// Puts what a handler told on its way, now that the handler's unit is durable.
pub fn release(engine: &Bound<'_, Engine>, run: &Run, tells: Vec<Tell>) -> PyResult<()> {
    if tells.is_empty() {
        return Ok(());
    }
    let py = engine.py();
    engine.get().outgoing.borrow_mut(py).extend(tells);
    schedule_pump(py, run)
}

fn schedule_pump(py: Python<'_>, run: &Run) -> PyResult<()> {
    if run.pump_is_due.get(py) {
        return Ok(());
    }
    run.pump_is_due.set(py, true);
    run.home.call_soon(py, run.callbacks.pump.bind(py))
}

/// Delivers what was told, as much as fits into one round of the loop.
pub fn pump(engine: &Bound<'_, Engine>, run: &Arc<Run>) -> PyResult<()> {
    let py = engine.py();
    let mut result = Ok(());
    run.pump_is_due.set(py, false);
    for _ in 0..TURN_BUDGET {
        let next = engine.get().outgoing.borrow_mut(py).pop_front();
        let Some(tell) = next else { return result };
        let to = format!("{}/{}", tell.entity.key.kind, tell.entity.key.id);
        match deliver(py, tell) {
            Ok(()) => {}
            Err(failure) if ego_answer::error::ends_the_process(py, &failure) => {
                result = Err(failure);
                break;
            }
            Err(failure) => logging::exception(py, &format!("a command told to {to} was not accepted"), failure),
        }
    }
    schedule_pump(py, run).and(result)
}

fn deliver(py: Python<'_>, tell: Tell) -> PyResult<()> {
    let engine = tell.engine.bind(py);
    let run = engine.get().running(py)?;
    let entity = engine.get().current(py, &tell.entity);
    let (at, context) = (At { py, engine, run: &run, entity: &entity, caller: None }, tell.context.bind(py));
    let wish = Wish::Command(tell.command.bind(py), tell.terms.as_ref());
    wake::within(context, || at.ask_in(wish, Patience::Told, Some(context)))?.map(drop)
}
