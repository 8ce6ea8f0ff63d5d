//! Threads that block for their answers, and in which order they go on.
//!
//! Each needs the interpreter lock to go on. If all that have an answer were woken together they would wait for that
//! lock, and every thread would be woken twice. So one of them goes on at a time, and wakes the next when it blocks
//! again. A thread that stays away holds the others up for half a millisecond at most: one that blocks keeps watch.

use crate::cell::GilCell;
use pyo3::prelude::*;
use rustix::thread::futex::{self, Flags, Timespec};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a thread may stay away before the others go on without it.
const PATIENCE: Duration = Duration::from_micros(500);

const BLOCKED: u32 = 0;
const WATCH: u32 = 1;
const GO_ON: u32 = 2;

/// Where one thread blocks.
#[derive(Debug, Default)]
pub struct Seat(AtomicU32);

impl Seat {
    fn call(&self, what: u32) {
        self.0.store(what, Ordering::Release);
        // It fails only where there is no such address.
        let _ = futex::wake(&self.0, Flags::PRIVATE, 1);
    }

    /// Blocks until it is called, a signal comes, or the time is over.
    fn wait(&self, limit: Option<Duration>) {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        if self.0.load(Ordering::Acquire) == BLOCKED {
            let _ = futex::wait(&self.0, Flags::PRIVATE, BLOCKED, limit.as_ref());
        }
    }
}

struct Line {
    /// Those that may go on, in their order.
    ready: VecDeque<Arc<Seat>>,
    /// Who was let go on last and has not blocked again, and since when.
    away: Option<(Arc<Seat>, Instant)>,
    /// Who keeps watch.
    watch: Option<Arc<Seat>>,
}

const EMPTY: Line = Line { ready: VecDeque::new(), away: None, watch: None };

static LINE: GilCell<Line> = GilCell::new(EMPTY);

fn is(held: Option<&Arc<Seat>>, seat: &Arc<Seat>) -> bool {
    held.is_some_and(|held| Arc::ptr_eq(held, seat))
}

impl Line {
    /// The first, who may go on now.
    #[expect(clippy::disallowed_methods, reason = "threads are away in real time, whatever clock an engine has")]
    fn next(&mut self) -> Option<Arc<Seat>> {
        let next = self.ready.pop_front()?;
        self.watch.take_if(|watch| Arc::ptr_eq(watch, &next));
        self.away = Some((Arc::clone(&next), Instant::now()));
        Some(next)
    }

    fn nobody_comes(&self) -> bool {
        self.away.as_ref().is_none_or(|(_, since)| since.elapsed() >= PATIENCE)
    }

    fn is_unwatched(&self) -> bool {
        self.watch.is_none() && !self.ready.is_empty()
    }

    /// Has the last one keep watch, if somebody has to.
    fn post(&mut self) {
        if self.is_unwatched()
            && let Some(last) = self.ready.back()
        {
            last.call(WATCH);
            self.watch = Some(Arc::clone(last));
        }
    }
}

/// For the child of a fork: the threads that stand in line are the parent's.
pub fn forget_after_fork(py: Python<'_>) {
    *LINE.borrow_mut(py) = EMPTY;
}

/// Lets a thread go on when it is its turn.
pub(crate) fn call(py: Python<'_>, seat: Arc<Seat>) {
    let mut line = LINE.borrow_mut(py);
    line.ready.push_back(seat);
    if line.nobody_comes()
        && let Some(next) = line.next()
    {
        next.call(GO_ON);
    }
    line.post();
}

/// Blocks until somebody calls the seat that `register` gets.
///
/// # Errors
/// What a signal handler raises.
pub(crate) fn block(py: Python<'_>, register: impl FnOnce(Arc<Seat>)) -> PyResult<()> {
    thread_local! {
        static SEAT: Cell<Option<Arc<Seat>>> = const { Cell::new(None) };
    }
    // A signal handler that blocks as well gets another one.
    let seat = SEAT.take().unwrap_or_default();
    seat.0.store(BLOCKED, Ordering::Relaxed);
    register(Arc::clone(&seat));
    let blocked = wait(py, &seat);
    if blocked.is_err() {
        let mut line = LINE.borrow_mut(py);
        line.ready.retain(|ready| !Arc::ptr_eq(ready, &seat));
        line.watch.take_if(|watch| Arc::ptr_eq(watch, &seat));
        line.post();
    }
    SEAT.set(Some(seat));
    blocked
}

fn wait(py: Python<'_>, seat: &Arc<Seat>) -> PyResult<()> {
    let mut next = {
        let mut line = LINE.borrow_mut(py);
        match line.away.take_if(|(away, _)| Arc::ptr_eq(away, seat)) {
            Some(_) => line.next(),
            None => None,
        }
    };
    loop {
        let watches = {
            let mut line = LINE.borrow_mut(py);
            if line.is_unwatched() {
                line.watch = Some(Arc::clone(seat));
            }
            is(line.watch.as_ref(), seat)
        };
        py.detach(|| {
            if let Some(next) = next.take() {
                next.call(GO_ON);
            }
            seat.wait(watches.then_some(PATIENCE));
        });
        let _ = seat.0.compare_exchange(WATCH, BLOCKED, Ordering::Relaxed, Ordering::Relaxed);
        if seat.0.load(Ordering::Acquire) == GO_ON {
            return Ok(());
        }
        py.check_signals()?;
        look(py, seat);
    }
}

/// If this thread keeps watch and who went on stays away, lets everybody go on.
fn look(py: Python<'_>, seat: &Arc<Seat>) {
    let mut line = LINE.borrow_mut(py);
    if !is(line.watch.as_ref(), seat) {
        return;
    }
    if line.ready.is_empty() {
        line.watch = None;
    } else if line.nobody_comes() {
        line.watch = None;
        line.away = None;
        line.ready.drain(..).for_each(|ready| ready.call(GO_ON));
    }
}
