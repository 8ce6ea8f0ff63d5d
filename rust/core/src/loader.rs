//! Threads that read entities for those who may not wait for a disk.
//!
//! Two threads per store, started by the first reading. A reading runs ahead of whoever takes it by a few pieces and no
//! more, so memory stays bounded however long a history is. Readings are begun in the order in which they are asked for;
//! two that nobody takes from hold up the others.

use crate::entities::commands::{Commands, Retention};
use crate::error::{Result, StoreError};
use crate::history::{self, Chunk, Wanted};
use crate::journal::{EntityKey, Journal, Read, Wait};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const THREADS: usize = 2;
/// Pieces that a reading may be ahead.
const AHEAD: usize = 4;

type Job = Box<dyn FnOnce() + Send>;
type Waker = Arc<dyn Fn() + Send + Sync>;

/// What a reading gives, in order.
#[derive(Debug)]
pub enum Piece<T> {
    /// A part of what was read.
    Part(T),
    /// There is no more: what the journal's read returned.
    End(Result<u64>),
}

/// The threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is a job, or there will be none.
    work: Condvar,
    /// A reading has room for a piece, or nobody wants it any more.
    room: Condvar,
    /// The process that it works in: a forked child has no such threads, and their locks may be held for ever.
    owner: u32,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Readings that have something to be taken.
    ready: VecDeque<u64>,
    wake: Option<Waker>,
    idle: usize,
    last_number: u64,
    is_closed: bool,
}

impl Shared {
    fn is_here(&self) -> bool {
        self.owner == std::process::id()
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.is_closed {
                return;
            } else {
                state.idle += 1;
                self.work.wait(&mut state);
                state.idle -= 1;
            }
        }
    }

    fn tell(&self, number: u64) {
        let wake = {
            let mut state = self.state.lock();
            state.ready.push_back(number);
            state.wake.clone()
        };
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// One reading, as seen from both ends.
struct Line<T> {
    shared: Arc<Shared>,
    number: u64,
    pieces: Mutex<VecDeque<Piece<T>>>,
    /// Whether the taker knows that there is something.
    is_told: AtomicBool,
    is_unwanted: AtomicBool,
}

impl<T> Line<T> {
    /// Lays a piece down once there is room for it.
    fn put(&self, piece: Piece<T>) -> Read {
        let mut state = self.shared.state.lock();
        loop {
            if state.is_closed || self.is_unwanted.load(Ordering::SeqCst) {
                return Read::Enough;
            }
            let mut pieces = self.pieces.lock();
            if pieces.len() < AHEAD {
                pieces.push_back(piece);
                break;
            }
            drop(pieces);
            self.shared.room.wait(&mut state);
        }
        drop(state);
        self.tell();
        Read::More
    }

    fn tell(&self) {
        if !self.is_told.swap(true, Ordering::SeqCst) {
            self.shared.tell(self.number);
        }
    }
}

/// A reading. It ends early when this is dropped.
pub struct Load<T>(Arc<Line<T>>);

impl<T> Load<T> {
    /// What [`Loader::next_ready`] calls it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The next piece, if it is there. Once there is none, the reading is ready again when there is one.
    ///
    /// After the end there is none.
    pub fn take(&self) -> Option<Piece<T>> {
        let line = &self.0;
        line.is_told.store(false, Ordering::SeqCst);
        let piece = line.pieces.lock().pop_front();
        if piece.is_some() {
            let _state = line.shared.state.lock();
            line.shared.room.notify_all();
        }
        piece
    }

    /// Makes it ready again, for a taker that goes on later with what it has.
    pub fn leave(&self) {
        // Whether it is ready for another reason as well does not matter: that may have been what the taker was told.
        self.0.shared.tell(self.0.number);
    }
}

impl<T> Drop for Load<T> {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        self.0.is_unwanted.store(true, Ordering::SeqCst);
        if shared.is_here() {
            let _state = shared.state.lock();
            shared.room.notify_all();
        }
    }
}

impl Loader {
    /// No thread yet.
    #[must_use]
    pub fn new() -> Self {
        let shared =
            Shared { state: Mutex::default(), work: Condvar::new(), room: Condvar::new(), owner: std::process::id() };
        Self { shared: Arc::new(shared), threads: Mutex::default() }
    }

    /// Registers what is called, from any thread and without arguments, when a reading is ready.
    pub fn on_ready(&self, wake: Waker) {
        let before = self.shared.state.lock().wake.replace(wake);
        drop(before);
    }

    /// A reading that has something to be taken, each once; or had.
    #[must_use]
    pub fn next_ready(&self) -> Option<u64> {
        self.shared.state.lock().ready.pop_front()
    }

    /// Reads the events of an entity, or a state.
    ///
    /// # Errors
    /// `Closed`; `Io`: no thread could be started.
    pub fn history(&self, journal: &Arc<dyn Journal>, entity: &EntityKey, wanted: Wanted) -> Result<Load<Chunk>> {
        let (journal, entity) = (Arc::clone(journal), entity.clone());
        self.start(move |put| {
            history::read(&*journal, &entity, wanted, Wait::AsLongAsItTakes, &mut |chunk| put(std::mem::take(chunk)))
        })
    }

    /// Reads the commands that an entity remembers at `now`.
    ///
    /// # Errors
    /// As [`Loader::history`].
    pub fn commands<R: Send + 'static>(
        &self,
        journal: &Arc<dyn Journal>,
        entity: &EntityKey,
        now: u64,
        retention: Retention,
    ) -> Result<Load<Commands<R>>> {
        let (journal, entity) = (Arc::clone(journal), entity.clone());
        self.start(move |put| {
            put(Commands::read(&*journal, &entity, now, retention, Wait::AsLongAsItTakes)?);
            Ok(0)
        })
    }

    fn start<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn FnMut(T) -> Read) -> Result<u64> + Send + 'static,
    ) -> Result<Load<T>> {
        if !self.shared.is_here() {
            return Err(StoreError::Closed);
        }
        let mut threads = self.threads.lock();
        let mut state = self.shared.state.lock();
        if state.is_closed {
            return Err(StoreError::Closed);
        }
        if state.idle <= state.jobs.len() && threads.len() < THREADS {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new().name("ego-loader".to_owned()).spawn(move || shared.run());
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => return Err(StoreError::io("", "starting a thread", error)),
                // One thread does it as well.
                Err(_) => {}
            }
        }
        state.last_number += 1;
        let line = Arc::new(Line {
            shared: Arc::clone(&self.shared),
            number: state.last_number,
            pieces: Mutex::default(),
            is_told: AtomicBool::new(false),
            is_unwanted: AtomicBool::new(false),
        });
        let filled = Arc::clone(&line);
        state.jobs.push_back(Box::new(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| read(&mut |part| filled.put(Piece::Part(part)))));
            let bug = || std::io::Error::other("a reading ended unexpectedly; this is a bug");
            let ended = ended.unwrap_or_else(|_| Err(StoreError::io("", "reading an entity", bug())));
            filled.put(Piece::End(ended));
        }));
        self.shared.work.notify_one();
        Ok(Load(line))
    }

    /// Ends what is under way and the threads; waits for reads of the disk that cannot be ended. Idempotent.
    pub fn close(&self) {
        if !self.shared.is_here() {
            return;
        }
        let jobs = {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            std::mem::take(&mut state.jobs)
        };
        drop(jobs);
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A job cannot panic.
            let _ = thread.join();
        }
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if self.shared.is_here() {
            self.close();
        } else {
            std::mem::take(self.threads.get_mut()).into_iter().for_each(std::mem::forget);
        }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Load<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("number", &self.0.number).finish_non_exhaustive()
    }
}
