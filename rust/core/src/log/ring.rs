//! The last batches, for those who follow the live end: shared, and bounded in bytes and number.
//!
//! Nothing is kept while nobody follows. Who is further behind than the ring reaches reads files; the ring waits for nobody.

use super::walk::Standing;
use crate::feed::{Bytes, Pool};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A durable batch, header included.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    pub(super) bytes: Arc<Bytes>,
    /// Its last position.
    pub(super) upto: u64,
    /// What follows it.
    pub(super) standing: Standing,
}

/// What the ring has behind a position.
#[derive(Debug)]
pub(super) enum Found {
    /// The batch with the next position.
    Batch(Recent),
    /// Nothing: that is the end.
    End,
    /// It does not reach back so far.
    Behind,
}

#[derive(Debug)]
pub(super) struct Ring {
    batches: Mutex<VecDeque<Recent>>,
    bytes: AtomicUsize,
    /// What is held follows this position.
    start: AtomicU64,
    /// The last position held.
    upto: AtomicU64,
    followers: AtomicUsize,
    most_bytes: usize,
    most_batches: usize,
}

impl Ring {
    pub(super) fn new(most_bytes: usize, most_batches: usize) -> Self {
        Self {
            batches: Mutex::default(),
            bytes: AtomicUsize::new(0),
            start: AtomicU64::new(0),
            upto: AtomicU64::new(0),
            followers: AtomicUsize::new(0),
            most_bytes,
            most_batches,
        }
    }

    /// Counts one more follower. `end` reads the last durable position: where the ring begins for the first of them.
    pub(super) fn join(&self, end: impl FnOnce() -> u64) {
        // Held meanwhile: a batch that is durable after `end` was read finds that there is a follower, and waits here.
        let _batches = self.batches.lock();
        if self.followers.fetch_add(1, Ordering::SeqCst) == 0 {
            let end = end();
            self.start.store(end, Ordering::SeqCst);
            self.upto.store(end, Ordering::SeqCst);
        }
    }

    /// Counts one follower less.
    pub(super) fn leave(&self) {
        let mut batches = self.batches.lock();
        if self.followers.fetch_sub(1, Ordering::SeqCst) == 1 {
            batches.clear();
            self.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Takes a batch in whose last position is `upto`. It is durable, and can be read from the file as well.
    pub(super) fn push(&self, batch: &[u8], upto: u64, standing: Standing, pool: &Arc<Pool>) {
        if self.followers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut buffer = pool.take(batch.len());
        buffer.clear();
        buffer.extend_from_slice(batch);
        let taken = buffer.capacity();
        let bytes = Arc::new(Bytes::new(buffer, pool));
        let mut batches = self.batches.lock();
        if upto <= self.upto.load(Ordering::SeqCst) || self.followers.load(Ordering::SeqCst) == 0 {
            return;
        }
        batches.push_back(Recent { bytes, upto, standing });
        let mut held = self.bytes.load(Ordering::Relaxed) + taken;
        while (held > self.most_bytes || batches.len() > self.most_batches)
            && let Some(oldest) = batches.pop_front()
        {
            held -= oldest.bytes.taken();
            self.start.store(oldest.upto, Ordering::SeqCst);
        }
        self.bytes.store(held, Ordering::Relaxed);
        self.upto.store(upto, Ordering::SeqCst);
    }

    /// Whether what follows `position` is held, or will be.
    pub(super) fn reaches(&self, position: u64) -> bool {
        position >= self.start.load(Ordering::SeqCst)
    }

    pub(super) fn after(&self, position: u64) -> Found {
        if position >= self.upto.load(Ordering::SeqCst) {
            return Found::End;
        }
        let batches = self.batches.lock();
        if !self.reaches(position) {
            return Found::Behind;
        }
        let at = batches.partition_point(|batch| batch.upto <= position);
        batches.get(at).map_or(Found::End, |batch| Found::Batch(batch.clone()))
    }
}
