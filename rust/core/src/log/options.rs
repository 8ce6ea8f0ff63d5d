//! How a log is laid out and how much it takes at once.

use super::format::{BATCH_HEADER, DATA_START};
use super::space::FIRST_FILL;
use crate::entities::shard::DEFAULT_SHARDS;
use crate::error::{Result, StoreError};
use std::path::PathBuf;

/// Options of a log. The shard count is fixed when the store is made; the rest may change from opening to opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Shards of a new store, at least 1. Default 128.
    pub shards: u16,
    /// Bytes of a segment, 64 KiB to 2 GiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes that all that one command stores may take, at most what a segment holds. Default 16 MiB.
    pub max_unit_bytes: u32,
    /// Bytes accepted and not settled above which the log calls itself congested, at least `max_unit_bytes`. Default 64 MiB.
    pub max_queue_bytes: u64,
    /// Bytes of log after which a checkpoint is written. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Milliseconds of idleness after which a mark proves the last batch durable; 0 for never. Default 5.
    pub idle_mark_millis: u64,
    /// Bytes that a follower reads of a file at once, at least 4 KiB. Default 256 KiB.
    pub feed_chunk_bytes: u32,
    /// Bytes of recent batches kept for followers of the live end. Default 8 MiB.
    pub feed_ring_bytes: u32,
    /// Recent batches kept for followers of the live end. Default 1,024.
    pub feed_ring_batches: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            shards: DEFAULT_SHARDS,
            segment_bytes: 64 << 20,
            max_unit_bytes: 16 << 20,
            max_queue_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            idle_mark_millis: 5,
            feed_chunk_bytes: 256 << 10,
            feed_ring_bytes: 8 << 20,
            feed_ring_batches: 1024,
        }
    }
}

impl LogOptions {
    /// Bytes that a new segment is filled with.
    #[must_use]
    pub fn first_fill(&self) -> u64 {
        FIRST_FILL.min(self.segment_bytes)
    }

    /// Checks that the options fit together.
    ///
    /// # Errors
    /// `Format`, with the name and value of the option.
    pub fn check(&self) -> Result<()> {
        let refuse = |detail: String| Err(StoreError::Format { path: PathBuf::new(), detail });
        if self.shards == 0 {
            return refuse("shards=0: a store has at least one shard".to_owned());
        }
        if !(64 << 10..=2 << 30).contains(&self.segment_bytes) {
            return refuse(format!("segment_bytes={}: a segment has 64 KiB to 2 GiB", self.segment_bytes));
        }
        let room = self.segment_bytes - DATA_START - 2 * BATCH_HEADER as u64;
        if self.max_unit_bytes < 1024 || u64::from(self.max_unit_bytes) > room {
            return refuse(format!(
                "max_unit_bytes={}: at least 1024 and at most {room} with segment_bytes={}",
                self.max_unit_bytes, self.segment_bytes
            ));
        }
        if self.max_queue_bytes < u64::from(self.max_unit_bytes) {
            return refuse(format!(
                "max_queue_bytes={}: at least max_unit_bytes={}",
                self.max_queue_bytes, self.max_unit_bytes
            ));
        }
        if self.feed_chunk_bytes < 4 << 10 {
            return refuse(format!("feed_chunk_bytes={}: at least 4096", self.feed_chunk_bytes));
        }
        Ok(())
    }
}
