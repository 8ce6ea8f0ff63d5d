//! What became of each ticket.
//!
//! The committer settles tickets in order by moving one number; whoever waits compares it with his own. Refusals are rare
//! and kept as ranges. A poisoned log settles everything: what is not known to be durable has an unknown outcome.

use crate::error::StoreError;
use crate::journal::{Outcome, Ticket};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug)]
struct Refusals {
    first: Ticket,
    last: Ticket,
    error: StoreError,
}

/// Wakes those who wait, from any thread, without an argument.
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Outcomes of tickets, shared between the committer and those who wait.
#[derive(Default)]
pub struct Settlement {
    settled: AtomicU64,
    durable: AtomicU64,
    any_refused: AtomicBool,
    refused: Mutex<Vec<Refusals>>,
    poison: RwLock<Option<Arc<str>>>,
    wakers: RwLock<Vec<Waker>>,
}

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settlement").field("settled", &self.settled).finish_non_exhaustive()
    }
}

impl Settlement {
    /// The highest settled ticket.
    pub fn settled(&self) -> Ticket {
        self.settled.load(Ordering::Acquire)
    }

    /// Adds one who wants to be woken.
    pub fn on_settled(&self, waker: Waker) {
        self.wakers.write().push(waker);
    }

    /// Notes that a ticket not settled yet was refused.
    pub fn refuse(&self, ticket: Ticket, error: &StoreError) {
        let mut refused = self.refused.lock();
        match refused.last_mut() {
            Some(range)
                if range.last + 1 == ticket
                    && matches!((&range.error, error), (StoreError::Full { .. }, StoreError::Full { .. })) =>
            {
                range.last = ticket;
            }
            _ => refused.push(Refusals { first: ticket, last: ticket, error: error.clone() }),
        }
        self.any_refused.store(true, Ordering::Release);
    }

    /// Settles every ticket up to this one; those not refused are durable.
    pub fn settle(&self, upto: Ticket) {
        self.durable.store(upto, Ordering::Release);
        // Somebody else may have poisoned the log meanwhile.
        self.settled.fetch_max(upto, Ordering::Release);
        self.wake();
    }

    /// Settles everything for ever: what is not settled yet has an unknown outcome.
    pub fn poison(&self, cause: Arc<str>) {
        self.poison.write().get_or_insert(cause);
        self.settled.store(u64::MAX, Ordering::Release);
        self.wake();
    }

    /// The failure that closed the log.
    pub fn poisoned(&self) -> Option<StoreError> {
        if self.settled() != u64::MAX {
            return None;
        }
        self.poison.read().as_ref().map(|cause| StoreError::Poisoned { cause: Arc::clone(cause) })
    }

    /// What became of a settled ticket.
    pub fn outcome(&self, ticket: Ticket) -> Outcome {
        if self.any_refused.load(Ordering::Acquire) {
            let refused = self.refused.lock();
            let at = refused.partition_point(|range| range.last < ticket);
            if let Some(range) = refused.get(at).filter(|range| range.first <= ticket) {
                return Outcome::Refused(range.error.clone());
            }
        }
        if ticket > self.durable.load(Ordering::Acquire) {
            let cause = self.poison.read().clone().unwrap_or_else(|| Arc::from("the commit did not end"));
            return Outcome::Unknown(StoreError::OutcomeUnknown { cause });
        }
        Outcome::Stored
    }

    fn wake(&self) {
        for waker in self.wakers.read().iter() {
            waker();
        }
    }
}
