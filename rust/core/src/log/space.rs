//! Room to commit into: zero-filled ahead of the committer by the housekeeper, so that a commit overwrites bytes that
//! exist and its sync has no metadata to write.
//!
//! The committer never writes beyond what is filled. Where the disk is full it is told so, once for each time it asked,
//! and asking again tries again.

use super::segment;
use crate::error::{Result, StoreError};
use crate::io::{Door, File, Mode};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// Bytes filled when a segment is made, and the smallest step after.
pub const FIRST_FILL: u64 = 1 << 20;
/// Bytes filled between two syncs while nobody waits: a commit's sync waits for that of a fill, so it is kept short.
const PIECE: u64 = 128 << 10;
/// The largest step.
const LARGEST_FILL: u64 = 8 << 20;

/// Work for the housekeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Fill the active segment up to this offset.
    Fill(u64),
    /// Prepare the segment with this id.
    Prepare(u32),
    /// The segment with this id is complete.
    Sealed(u32),
    /// Write a checkpoint.
    Checkpoint,
    /// Nothing will come.
    Stop,
}

#[derive(Debug)]
struct State {
    active: u32,
    /// A descriptor of its own: a failed sync is reported once for each, and the committer must not miss one.
    file: Arc<dyn File>,
    filled: u64,
    used: u64,
    wanted: u64,
    next_wanted: bool,
    next: Option<(u32, Arc<dyn File>)>,
    /// Whether the committer is starting the segment that it took: it must not be prepared a second time.
    rolling: bool,
    /// Why the active segment could not be filled. A full disk is tried again when the committer has to wait; anything else
    /// stays.
    fill_failure: Option<StoreError>,
    /// Why the next segment could not be prepared; tried again when the committer needs it.
    prepare_failure: Option<StoreError>,
    /// Whether the housekeeper has ended before it was told to.
    failed: bool,
    jobs: VecDeque<Job>,
    stopping: bool,
}

/// The room of the active segment and the one to come.
#[derive(Debug)]
pub struct Space {
    state: Mutex<State>,
    changed: Condvar,
    segment_bytes: u64,
}

impl Space {
    /// The room of an active segment that is filled up to `filled` and used up to `used`.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(door: &dyn Door, store: &Path, active: u32, filled: u64, used: u64, segment_bytes: u64) -> Result<Self> {
        let (file, _) = segment::open(door, store, active, Mode::Write)?;
        let state = State {
            active,
            file,
            filled,
            used,
            wanted: 0,
            next_wanted: false,
            next: None,
            rolling: false,
            fill_failure: None,
            prepare_failure: None,
            failed: false,
            jobs: VecDeque::new(),
            stopping: false,
        };
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), segment_bytes })
    }

    /// How far the active segment is filled.
    pub fn filled(&self) -> u64 {
        self.state.lock().filled
    }

    /// Waits until the active segment is filled up to `end`.
    ///
    /// # Errors
    /// `Full`, `Io`.
    pub fn ensure(&self, end: u64) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(failure) = state.fill_failure.clone()
            && !matches!(failure, StoreError::Full { .. })
        {
            return Err(failure);
        }
        if state.filled >= end {
            return Ok(());
        }
        state.fill_failure = None;
        while state.filled < end && state.fill_failure.is_none() {
            state.wanted = end;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        state.wanted = 0;
        if state.filled >= end { Ok(()) } else { state.fill_failure.clone().map_or(Ok(()), Err) }
    }

    /// Notes how far the active segment is used, so that filling stays ahead.
    pub fn used(&self, offset: u64) {
        let mut state = self.state.lock();
        state.used = offset;
        if self.ahead(&state).is_some() {
            self.changed.notify_all();
        }
    }

    /// Waits for the prepared file of segment `id`.
    ///
    /// # Errors
    /// `Full`, `Io`.
    pub fn take_next(&self, id: u32) -> Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        if !state.failed {
            state.prepare_failure = None;
        }
        while state.next.as_ref().is_none_or(|(next, _)| *next != id) && state.prepare_failure.is_none() {
            state.next_wanted = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        state.next_wanted = false;
        match (state.next.take(), &state.prepare_failure) {
            (Some((_, file)), _) => {
                state.rolling = true;
                Ok(file)
            }
            (None, Some(failure)) => Err(failure.clone()),
            (None, None) => Err(StoreError::Closed),
        }
    }

    /// The segment `id` is the active one from now on.
    ///
    /// # Errors
    /// `Io`.
    pub fn switch(&self, door: &dyn Door, store: &Path, id: u32) -> Result<()> {
        let (file, _) = segment::open(door, store, id, Mode::Write)?;
        let mut state = self.state.lock();
        let sealed = state.active;
        state.active = id;
        state.rolling = false;
        state.file = file;
        state.filled = FIRST_FILL.min(self.segment_bytes);
        state.used = super::format::DATA_START;
        state.jobs.push_back(Job::Sealed(sealed));
        self.changed.notify_all();
        Ok(())
    }

    /// Asks the housekeeper for something.
    pub fn ask(&self, job: Job) {
        let mut state = self.state.lock();
        if job == Job::Stop {
            state.stopping = true;
        } else if !state.jobs.contains(&job) {
            state.jobs.push_back(job);
        }
        self.changed.notify_all();
    }

    /// Waits for the next thing to do: what the committer waits for first, then what keeps ahead of it, then the rest.
    pub fn next_job(&self) -> Job {
        let mut state = self.state.lock();
        loop {
            if state.filled < state.wanted {
                return Job::Fill(self.step(&state).max(state.wanted).min(self.segment_bytes));
            }
            if state.next_wanted && state.next.is_none() {
                return Job::Prepare(state.active + 1);
            }
            if !state.stopping
                && let Some(job) = self.ahead(&state)
            {
                return job;
            }
            if let Some(job) = state.jobs.pop_front() {
                return job;
            }
            if state.stopping {
                return Job::Stop;
            }
            self.changed.wait(&mut state);
        }
    }

    fn step(&self, state: &State) -> u64 {
        state.filled.saturating_add(state.filled.clamp(FIRST_FILL, LARGEST_FILL)).min(self.segment_bytes)
    }

    /// What keeps ahead of the committer. After a failure it is not tried again until the committer has to wait for it.
    fn ahead(&self, state: &State) -> Option<Job> {
        let left = state.filled.saturating_sub(state.used);
        let step = self.step(state);
        if state.fill_failure.is_none() && step > state.filled && left < (step - state.filled) / 2 {
            return Some(Job::Fill(step));
        }
        let wanted = state.prepare_failure.is_none() && state.next.is_none() && !state.rolling;
        let prepare = wanted && state.used > self.segment_bytes / 2;
        prepare.then(|| Job::Prepare(state.active + 1))
    }

    /// Does a [`Job::Fill`], in steps, so that the committer need not wait for all of it.
    pub fn fill(&self, store: &Path, to: u64) {
        loop {
            let (active, file, from, waited_for) = {
                let state = self.state.lock();
                (state.active, Arc::clone(&state.file), state.filled, state.wanted)
            };
            let step = to.min(waited_for.max(from + PIECE));
            if from >= to {
                return;
            }
            let outcome = segment::fill(&*file, from, step);
            let mut state = self.state.lock();
            if state.active != active {
                return;
            }
            match outcome {
                Ok(()) => state.filled = step,
                Err(error) => {
                    let path = segment::segment_path(store, active);
                    state.fill_failure = Some(segment::space_or_io(store, &path, "filling a segment", error));
                }
            }
            self.changed.notify_all();
            if state.fill_failure.is_some() {
                return;
            }
        }
    }

    /// Does a [`Job::Prepare`].
    pub fn prepare(&self, door: &dyn Door, store: &Path, id: u32) {
        let outcome = segment::prepare(door, store, id, FIRST_FILL.min(self.segment_bytes));
        let mut state = self.state.lock();
        match outcome {
            Ok(file) => state.next = Some((id, file)),
            Err(error) => state.prepare_failure = Some(error),
        }
        self.changed.notify_all();
    }

    /// Lets nobody wait for a housekeeper that has ended.
    pub fn fail(&self, failure: &StoreError) {
        let mut state = self.state.lock();
        state.fill_failure = Some(failure.clone());
        state.prepare_failure = Some(failure.clone());
        state.failed = true;
        self.changed.notify_all();
    }
}
