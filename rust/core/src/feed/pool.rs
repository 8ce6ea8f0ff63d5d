//! Buffers that are used again, so that a reader does not touch new memory for every chunk.

use parking_lot::Mutex;
use std::ops::Deref;
use std::sync::Arc;

/// Bytes of buffers that are kept for the next who needs one.
const KEPT_BYTES: usize = 4 << 20;
/// Smaller buffers are as quickly made anew: so there are never many to look through.
const LEAST_BYTES: usize = 64 << 10;

/// Buffers that nobody needs at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// A buffer with some content of before, or an empty one. It takes at most four times of `bytes`, unless it has to grow.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes.saturating_mul(4) < LEAST_BYTES {
            return Vec::new();
        }
        let mut spare = self.spare.lock();
        let fits = |buffer: &Vec<u8>| (bytes..=bytes.saturating_mul(4)).contains(&buffer.capacity());
        spare.iter().rposition(fits).map(|at| spare.swap_remove(at)).unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() < LEAST_BYTES {
            return;
        }
        let mut spare = self.spare.lock();
        let kept: usize = spare.iter().map(Vec::capacity).sum();
        if kept + buffer.capacity() <= KEPT_BYTES {
            spare.push(buffer);
        }
    }
}

/// Bytes that do not change any more. Their buffer goes back to its pool.
#[derive(Debug)]
pub(crate) struct Bytes {
    buffer: Vec<u8>,
    pool: Arc<Pool>,
}

impl Bytes {
    pub(crate) fn new(buffer: Vec<u8>, pool: &Arc<Pool>) -> Self {
        Self { buffer, pool: Arc::clone(pool) }
    }

    /// Bytes of memory that they take.
    pub(crate) fn taken(&self) -> usize {
        self.buffer.capacity()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}
