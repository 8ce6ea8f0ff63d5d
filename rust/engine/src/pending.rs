//! What waits for the disk, in the order of tickets, and who waits too long.
//!
//! One timer of the loop serves the nearest deadline of all and whoever leaves memory; a command that is done costs it
//! nothing.

use crate::context::Tell;
use crate::dispatch::{self, At};
use crate::engine::Engine;
use crate::entity::Entity;
use crate::run::{Call, Callback, Lane, Run};
use crate::turn::{Fate, fate};
use crate::{error, logging, residents};
use ego_answer::answer::{Answer, Phase};
use ego_core::journal::Ticket;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;

/// A command whose entity's last unit is not durable yet.
#[derive(Debug)]
pub struct Waiting {
    pub ticket: Ticket,
    pub entity: Arc<Entity>,
    pub generation: u32,
    pub answer: Answer,
    pub then: Then,
}

impl Waiting {
    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.answer.held())?;
        match &self.then {
            Then::Show { tells, .. } => tells.iter().try_for_each(|tell| tell.traverse(visit)),
            Then::Start => Ok(()),
        }
    }
}

/// What happens once it is durable.
#[derive(Debug)]
pub enum Then {
    /// The answer is shown and what the handler told is sent.
    Show { tells: Vec<Tell>, rejected: bool },
    /// The `async def` handler starts.
    Start,
}

/// Appends since the committer was last told.
const KICK_EVERY: u64 = 256;

/// Shows everything that is settled. With `step`, waiting tasks run right here: only from a callback of the loop.
///
/// # Errors
/// What a waiting task may not swallow: `KeyboardInterrupt`, `SystemExit`. The rest is shown by the next call.
pub fn drain(engine: &Bound<'_, Engine>, run: &Arc<Run>, step: bool) -> PyResult<()> {
    let py = engine.py();
    let was_draining = run.draining.get(py);
    run.draining.set(py, true);
    let mut result = Ok(());
    for lane in run.lanes() {
        let mut shown = 0;
        // What is settled meanwhile rings the bell again; the loop's other callbacks come first.
        let settled = lane.journal.settled();
        while result.is_ok() {
            let due = lane.waiting.borrow(py).front().is_some_and(|front| front.ticket <= settled);
            let next = if due { lane.waiting.borrow_mut(py).pop_front() } else { None };
            let Some(next) = next else { break };
            shown += 1;
            result = settle(engine, run, lane, next, step);
        }
        lane.last_batch.set(py, shown);
    }
    run.draining.set(py, was_draining);
    kick(py, run);
    if result.is_err() {
        run.home.call_soon(py, run.callbacks.drain.bind(py))?;
    }
    // What is durable now may leave memory.
    residents::shrink(engine.get(), py, run);
    engine.get().check_drained(py)?;
    result
}

fn settle(engine: &Bound<'_, Engine>, run: &Arc<Run>, lane: &Lane, waiting: Waiting, step: bool) -> PyResult<()> {
    let py = engine.py();
    let Waiting { ticket, entity, generation, answer, then } = waiting;
    let at = At { py, engine, run, entity: &entity, caller: None };
    match (fate(&*lane.journal, ticket), then) {
        (Fate::Lost(failure), then) => {
            entity.lose(py, ticket, generation);
            let failure = error::storage(py, &failure);
            match then {
                Then::Show { .. } => finish(engine, &entity, &answer, Verdict::Lost(failure), step),
                Then::Start => at.never_start(failure, step),
            }
        }
        (_, Then::Show { tells, rejected }) => {
            dispatch::release(engine, run, tells)?;
            finish(engine, &entity, &answer, if rejected { Verdict::Rejected } else { Verdict::Ok }, step)
        }
        (_, Then::Start) => at.start(step),
    }
}

/// How a command ended.
pub enum Verdict {
    Ok,
    /// Its handler raised.
    Rejected,
    /// Its events are not stored, or nobody knows.
    Lost(PyErr),
}

/// Shows an answer that was laid down, or a failure instead, and counts it.
pub fn finish(
    engine: &Bound<'_, Engine>,
    entity: &Entity,
    answer: &Answer,
    verdict: Verdict,
    step: bool,
) -> PyResult<()> {
    let py = engine.py();
    let tally = &engine.get().house;
    match verdict {
        Verdict::Ok => tally.ok.add(py, 1),
        Verdict::Rejected => tally.rejected.add(py, 1),
        Verdict::Lost(failure) => {
            tally.failed.add(py, 1);
            answer.prepare(py, Err(failure));
        }
    }
    if answer.is_told(py)
        && let Some(failure) = answer.error(py)
    {
        logging::exception(py, &format!("a command told to {}/{} failed", entity.key.kind, entity.key.id), failure);
    }
    answer.show(py, step)
}

/// Lets the answer wait for its ticket.
pub fn wait(engine: &Bound<'_, Engine>, run: &Run, waiting: Waiting) -> PyResult<()> {
    let py = engine.py();
    if run.is_over.get(py) {
        // Its thread was in a handler when the engine stopped: no loop will ever show it.
        return give_up(py, &waiting.entity, &waiting.answer, false);
    }
    let deadline = waiting.answer.deadline(py);
    let lane = run.lane(&waiting.entity.kind);
    let first = {
        let mut queue = lane.waiting.borrow_mut(py);
        let first = queue.is_empty();
        queue.push_back(waiting);
        first
    };
    arm(engine, run, deadline)?;
    appended(py, run, lane, first)
}

/// Decides when the committer is told: at once for a lone command and from another thread, else once per turn of the
/// loop and every `KICK_EVERY` appends.
fn appended(py: Python<'_>, run: &Run, lane: &Lane, first: bool) -> PyResult<()> {
    lane.unkicked.add(py, 1);
    let alone = first && lane.last_batch.get(py) <= 1 && !run.draining.get(py);
    if alone || lane.unkicked.get(py) >= KICK_EVERY || !run.home.is_this_thread() {
        kick_lane(py, lane);
    } else if !run.draining.get(py) && !run.flush_is_due.get(py) {
        run.flush_is_due.set(py, true);
        run.home.call_soon(py, run.callbacks.flush.bind(py))?;
    }
    Ok(())
}

/// Tells the committer what was appended, if anything was.
pub fn kick(py: Python<'_>, run: &Run) {
    run.lanes().for_each(|lane| kick_lane(py, lane));
}

fn kick_lane(py: Python<'_>, lane: &Lane) {
    if lane.unkicked.get(py) > 0 {
        lane.unkicked.set(py, 0);
        lane.journal.kick();
    }
}

/// Makes sure that somebody looks at the commands once one's time is over.
pub fn arm(engine: &Bound<'_, Engine>, run: &Run, deadline: u64) -> PyResult<()> {
    let py = engine.py();
    let nearest = run.deadline.get(py);
    if deadline == 0 || (nearest != 0 && nearest <= deadline) {
        return Ok(());
    }
    run.deadline.set(py, deadline);
    ring(engine, run, deadline)
}

/// Makes sure that the timer rings at `at` or before.
pub fn ring(engine: &Bound<'_, Engine>, run: &Run, at: u64) -> PyResult<()> {
    let py = engine.py();
    let nearest = run.nearest.get(py);
    if nearest != 0 && nearest <= at {
        return Ok(());
    }
    let clock = &engine.get().house.clock;
    if clock.is_by_hand() {
        run.nearest.set(py, at);
        return Ok(());
    }
    if !run.home.is_this_thread() {
        return run.home.call_soon(py, Callback::new(engine, Call::Rearm)?.bind(py));
    }
    let wait = at.saturating_sub(clock.monotonic_nanos());
    let timer = run.home.call_later(py, wait, run.callbacks.expire.bind(py))?;
    run.nearest.set(py, at);
    let before = engine.get().timer.borrow_mut(py).replace(timer);
    if let Some(before) = before {
        before.call_method0(py, "cancel")?;
    }
    Ok(())
}

/// Answers everybody whose time is over, has leave who was idle for his time, and sets the timer for the next. `due` is
/// what the timer was set to, if it is the timer that calls: a loop's timers ring a little early. With `step`, waiting
/// tasks run right here.
pub fn expire(engine: &Bound<'_, Engine>, run: &Arc<Run>, due: u64, step: bool) -> PyResult<()> {
    let py = engine.py();
    let inner = engine.get();
    let now = inner.house.clock.monotonic_nanos().max(due);
    run.nearest.set(py, 0);
    let timer = inner.timer.borrow_mut(py).take();
    if let Some(timer) = timer {
        timer.call_method0(py, "cancel")?;
    }
    let mut result = Ok(());
    let deadline = run.deadline.get(py);
    if deadline != 0 && deadline <= now {
        let (late, next) = late(inner, py, run, now);
        run.deadline.set(py, next);
        for (entity, answer) in late {
            result = result.and(give_up(py, &entity, &answer, step));
        }
    }
    residents::passivate(inner, py, run);
    for next in [run.deadline.get(py), residents::next_look(inner, py)] {
        if next != 0 {
            result = result.and(ring(engine, run, next));
        }
    }
    result
}

/// Whose time is over, and when the next one's is; 0 for never.
fn late(engine: &Engine, py: Python<'_>, run: &Run, now: u64) -> (Vec<(Arc<Entity>, Answer)>, u64) {
    let mut late = Vec::new();
    let mut next = 0;
    let mut look = |entity: &Arc<Entity>, answer: &Answer| match answer.deadline(py) {
        0 => {}
        deadline if deadline <= now => late.push((Arc::clone(entity), answer.clone_ref(py))),
        deadline => next = if next == 0 { deadline } else { deadline.min(next) },
    };
    for lane in run.lanes() {
        for waiting in lane.waiting.borrow(py).iter() {
            look(&waiting.entity, &waiting.answer);
        }
    }
    for entity in engine.active.borrow(py).values() {
        if let Some(running) = &*entity.running.borrow(py) {
            look(entity, &running.answer);
        }
    }
    engine.each_waiting(py, look);
    (late, next)
}

/// Answers with `CommandTimeoutError`; a command that is still queued never runs.
pub fn give_up(py: Python<'_>, entity: &Entity, answer: &Answer, step: bool) -> PyResult<()> {
    if answer.is_done(py) {
        return Ok(());
    }
    let failure = if answer.phase(py) == Phase::Queued && entity.withdraw(py, answer.held()) {
        error::too_late(
            py,
            &entity.key,
            "not_run",
            "the command was still queued when its time was over; it will not run",
        )
    } else {
        error::too_late(py, &entity.key, "unknown", "the command had begun when its time was over; it may be stored")
    };
    if answer.is_told(py) {
        return answer.show(py, step);
    }
    answer.fail(py, failure, step)
}
