//! The commit queue: units wait here, encoded, for the committer to take them all at once.
//!
//! Producers hold the lock for one copy; the committer holds it for one swap. Tickets count units from 1.

use crate::error::{Result, StoreError};
use crate::journal::{Content, Ticket, Unit};
use crate::log::format::encode_unit;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Encoded units in order of acceptance.
#[derive(Debug, Default)]
pub struct Pending {
    /// The units, one after the other.
    pub bytes: Vec<u8>,
    /// Where each unit ends in `bytes`.
    pub ends: Vec<usize>,
    /// Ticket of the first unit.
    pub first_ticket: Ticket,
}

impl Pending {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[derive(Debug)]
struct State {
    pending: Pending,
    next_ticket: Ticket,
    kicked: bool,
    closing: bool,
    /// Whether the committer waits without a limit and has nothing to commit.
    asleep: bool,
    /// Whether there is more than notes: whoever sent that kicks, once he has sent all that he has.
    is_awaited: bool,
    refusal: Option<StoreError>,
}

/// What the committer finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Units to commit.
    Units,
    /// Nothing came for the time given.
    Idle,
    /// Nothing is left and nothing will come.
    Closing,
}

/// The queue between those who append and the committer.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    kicked: Condvar,
    /// Bytes ever accepted; written under the lock alone.
    accepted_bytes: AtomicU64,
    /// Bytes ever settled; as many as there can be once the log is poisoned.
    settled_bytes: AtomicU64,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            pending: Pending { first_ticket: 1, ..Pending::default() },
            next_ticket: 1,
            kicked: false,
            closing: false,
            asleep: false,
            is_awaited: false,
            refusal: None,
        };
        Self {
            state: Mutex::new(state),
            kicked: Condvar::new(),
            accepted_bytes: AtomicU64::new(0),
            settled_bytes: AtomicU64::new(0),
        }
    }

    /// Accepts a unit of `len` encoded bytes.
    ///
    /// # Errors
    /// Why the queue was closed.
    pub fn push(&self, unit: &Unit<'_>, len: usize, shard: u16) -> Result<Ticket> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        encode_unit(unit, len, shard, &mut state.pending.bytes);
        let end = state.pending.bytes.len();
        state.pending.ends.push(end);
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let accepted = self.accepted_bytes.load(Ordering::Relaxed) + len as u64;
        self.accepted_bytes.store(accepted, Ordering::Relaxed);
        if !matches!(unit.content, Content::Note(_)) {
            state.is_awaited = true;
        } else if std::mem::take(&mut state.asleep) {
            self.kicked.notify_one();
        }
        Ok(ticket)
    }

    /// Bytes accepted and not settled.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        let settled = self.settled_bytes.load(Ordering::Relaxed);
        self.accepted_bytes.load(Ordering::Relaxed).saturating_sub(settled)
    }

    /// Counts `len` bytes as settled; `u64::MAX` for all that ever come.
    pub fn settled(&self, len: u64) {
        let more = |settled: u64| Some(settled.saturating_add(len));
        let _ = self.settled_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Lets the committer start.
    pub fn kick(&self) {
        let mut state = self.state.lock();
        if !state.kicked && !state.pending.ends.is_empty() {
            state.kicked = true;
            self.kicked.notify_one();
        }
    }

    /// Refuses everything from now on with `refusal`; with `closing`, the committer ends once nothing is left.
    pub fn refuse(&self, refusal: StoreError, closing: bool) {
        let mut state = self.state.lock();
        state.refusal.get_or_insert(refusal);
        state.closing |= closing;
        self.kicked.notify_one();
    }

    /// Units accepted since the beginning.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.state.lock().next_ticket - 1
    }

    /// Waits for a kick and swaps what is there into `taken`, whose buffers are used again. After `idle` without a kick it
    /// takes notes all the same, where there is nothing else; and says that it was idle, where that matters: `unproven`.
    pub fn take(&self, taken: &mut Pending, idle: Option<Duration>, unproven: bool) -> Taken {
        taken.clear();
        let mut state = self.state.lock();
        while !state.kicked && !state.closing {
            let is_riding = !state.pending.ends.is_empty() && !state.is_awaited;
            let Some(idle) = idle.filter(|_| unproven || is_riding) else {
                state.asleep = idle.is_some();
                self.kicked.wait(&mut state);
                state.asleep = false;
                continue;
            };
            if self.kicked.wait_for(&mut state, idle).timed_out() && !state.kicked && !state.closing {
                if !state.pending.ends.is_empty() && !state.is_awaited {
                    break;
                }
                if unproven {
                    return Taken::Idle;
                }
            }
        }
        state.kicked = false;
        state.is_awaited = false;
        if state.pending.ends.is_empty() {
            return if state.closing { Taken::Closing } else { Taken::Units };
        }
        std::mem::swap(&mut state.pending, taken);
        state.pending.clear();
        state.pending.first_ticket = state.next_ticket;
        Taken::Units
    }
}
