//! Reads files for those who follow from further behind, a little ahead of what they take.
//!
//! One thread for a log, started by the first who needs it. Whoever is behind waits in one line for one chunk at a time and
//! goes to its end for the next, so nobody holds up the others, however slowly he takes.

use super::Shared;
use super::walk::{Standing, Walk};
use crate::error::{Result, StoreError};
use crate::feed::{Chunk, Filter, Listener};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Chunks that are read before they are taken.
const AHEAD: usize = 3;

/// The thread, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Reading>>,
    thread: Option<JoinHandle<()>>,
    is_closed: bool,
}

/// The reading of one follower.
#[derive(Debug)]
pub(super) struct Reading {
    filter: Filter,
    listener: Listener,
    inner: Mutex<Inner>,
    /// The walk is back.
    returned: Condvar,
}

#[derive(Debug)]
struct Inner {
    /// Away while the thread has it.
    walk: Option<Walk>,
    chunks: VecDeque<Result<Chunk>>,
    /// Whether the thread has it, or will have.
    is_asked: bool,
    /// Whether the follower came up empty.
    is_awaited: bool,
    is_unwanted: bool,
}

impl Ahead {
    fn ask(&self, shared: &Arc<Shared>, reading: &Arc<Reading>) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(StoreError::Closed);
        }
        if state.thread.is_none() {
            let reader = Arc::clone(shared);
            let work = move || reader.ahead.run(&reader);
            let thread = std::thread::Builder::new().name("ego-feed".to_owned()).spawn(work);
            state.thread = Some(thread.map_err(|e| StoreError::io(&shared.path, "starting a thread", e))?);
        }
        state.waiting.push_back(Arc::clone(reading));
        self.work.notify_one();
        Ok(())
    }

    fn run(&self, shared: &Arc<Shared>) {
        let mut state = self.state.lock();
        while !state.is_closed {
            let Some(reading) = state.waiting.pop_front() else {
                self.work.wait(&mut state);
                continue;
            };
            drop(state);
            reading.read_one(shared);
            state = self.state.lock();
        }
    }

    /// Ends the thread; waits for a read of the disk that cannot be ended.
    pub(super) fn close(&self) {
        let (waiting, thread) = {
            let mut state = self.state.lock();
            state.is_closed = true;
            (std::mem::take(&mut state.waiting), state.thread.take())
        };
        self.work.notify_one();
        // What waits here may be waited for.
        waiting.iter().for_each(|reading| reading.give_up());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Reading {
    pub(super) fn new(walk: Walk, filter: Filter, listener: Listener) -> Arc<Self> {
        let inner =
            Inner { walk: Some(walk), chunks: VecDeque::new(), is_asked: false, is_awaited: false, is_unwanted: false };
        Arc::new(Self { filter, listener, inner: Mutex::new(inner), returned: Condvar::new() })
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// What was read and comes next, if it is there; lets more be read while files have to be.
    ///
    /// # Errors
    /// `Io`: of the read, or no thread could be started; `Corrupt`, `Closed`.
    pub(super) fn take(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Option<Chunk>> {
        let mut inner = self.inner.lock();
        let chunk = inner.chunks.pop_front();
        let failed = matches!(chunk, Some(Err(_)));
        inner.is_awaited = chunk.is_none();
        if !failed {
            self.ask_for_more(shared, &mut inner)?;
        }
        chunk.transpose()
    }

    /// The same in the caller's thread.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub(super) fn wait(&self, shared: &Arc<Shared>) -> Result<Option<Chunk>> {
        let mut inner = self.inner.lock();
        while inner.is_asked && inner.chunks.is_empty() {
            self.returned.wait(&mut inner);
        }
        if let Some(chunk) = inner.chunks.pop_front() {
            return chunk.map(Some);
        }
        let Some(walk) = &mut inner.walk else { return Ok(None) };
        walk.chunk(shared, &self.filter)
    }

    /// Goes on from elsewhere, where that is not where it stands. Nothing is under way.
    pub(super) fn go_to(&self, position: u64, standing: Standing) {
        let mut inner = self.inner.lock();
        if inner.walk.as_ref().is_some_and(|walk| walk.position() < position) {
            inner.walk = Some(Walk::after(position, Some(standing)));
        }
    }

    pub(super) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.is_unwanted = true;
        inner.chunks.clear();
    }

    fn ask_for_more(self: &Arc<Self>, shared: &Arc<Shared>, inner: &mut Inner) -> Result<()> {
        let is_behind = inner.walk.as_ref().is_some_and(|walk| !shared.ring.reaches(walk.position()));
        if is_behind && !inner.is_asked && !inner.is_unwanted && inner.chunks.len() < AHEAD {
            shared.ahead.ask(shared, self)?;
            inner.is_asked = true;
        }
        Ok(())
    }

    fn read_one(self: &Arc<Self>, shared: &Arc<Shared>) {
        let walk = {
            let mut inner = self.inner.lock();
            if inner.is_unwanted { None } else { inner.walk.take() }
        };
        let Some(mut walk) = walk else { return };
        let read = catch_unwind(AssertUnwindSafe(|| walk.chunk(shared, &self.filter)));
        let bug = || std::io::Error::other("a reading ended unexpectedly; this is a bug");
        let read = read.unwrap_or_else(|_| Err(StoreError::io(&shared.path, "reading a segment", bug())));
        let is_awaited = {
            let mut inner = self.inner.lock();
            (inner.walk, inner.is_asked) = (Some(walk), false);
            let failed = read.is_err();
            if !inner.is_unwanted {
                inner.chunks.extend(read.transpose());
            }
            if !failed {
                // At once: who has taken the last chunk may go on elsewhere. Where the log is closed, nobody takes more.
                let _ = self.ask_for_more(shared, &mut inner);
            }
            std::mem::take(&mut inner.is_awaited)
        };
        self.returned.notify_all();
        if is_awaited {
            self.listener.wake();
        }
    }

    /// Lets go of a follower that waits for a chunk that nobody will read.
    fn give_up(&self) {
        self.inner.lock().is_asked = false;
        self.returned.notify_all();
    }
}
