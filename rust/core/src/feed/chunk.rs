//! What a follower hands out: some events and states, and how far they reach.
//!
//! The bytes are shared: with the ring and other followers, or they are a stretch of a segment as it was read. An entry says
//! where the parts of one event stand in them; nothing is copied for it.

use super::pool::Bytes;
use crate::journal::StoredEvent;
use std::sync::Arc;

/// One event or state of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct FeedEvent<'a> {
    /// The entity's kind.
    pub kind: &'a str,
    /// The entity's id.
    pub id: &'a str,
    /// The entity's shard.
    pub shard: u16,
    /// Whether it is the last of its unit that was let through.
    pub ends_unit: bool,
    /// What is stored.
    pub event: StoredEvent<'a>,
}

/// Events and states in order of position. Units are never split between chunks.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Option<Arc<Bytes>>,
    entries: Vec<Entry>,
    upto: u64,
}

/// Where something stands in the bytes of a chunk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// One event or state, and where its parts stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    pub(crate) revision: u64,
    pub(crate) time: u64,
    pub(crate) version: u32,
    /// Where the kind starts; the id follows it.
    pub(crate) names: u32,
    pub(crate) name: u32,
    pub(crate) metadata: u32,
    pub(crate) payload: Span,
    pub(crate) kind_len: u16,
    pub(crate) id_len: u16,
    pub(crate) name_len: u16,
    pub(crate) metadata_len: u16,
    pub(crate) shard: u16,
    pub(crate) is_state: bool,
    pub(crate) ends_unit: bool,
}

impl Chunk {
    /// A chunk whose entries stand in `bytes` and have been checked to be text where they should be.
    pub(crate) fn new(bytes: Arc<Bytes>, entries: Vec<Entry>, upto: u64) -> Self {
        Self { bytes: Some(bytes), entries, upto }
    }

    /// Nothing up to `upto` matched.
    pub(crate) fn nothing(upto: u64) -> Self {
        Self { upto, ..Self::default() }
    }

    /// Everything up to this position is in this chunk or one before, or did not match.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// How many events and states there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing matched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The event or state number `n`, from 0.
    #[must_use]
    #[inline]
    pub fn get(&self, n: usize) -> Option<FeedEvent<'_>> {
        let entry = self.entries.get(n)?;
        Some(entry.shown(self.bytes.as_deref()?))
    }

    /// All of them, in order of position.
    pub fn events(&self) -> impl Iterator<Item = FeedEvent<'_>> {
        let bytes = self.bytes.as_deref().map_or(&[][..], |bytes| bytes);
        self.entries.iter().map(|entry| entry.shown(bytes))
    }
}

impl Entry {
    #[inline]
    fn shown<'a>(&self, bytes: &'a [u8]) -> FeedEvent<'a> {
        let part = |start: u32, len: u32| bytes.get(start as usize..start as usize + len as usize).unwrap_or_default();
        let text = |start: u32, len: u16| std::str::from_utf8(part(start, len.into())).unwrap_or_default();
        FeedEvent {
            kind: text(self.names, self.kind_len),
            id: text(self.names + u32::from(self.kind_len), self.id_len),
            shard: self.shard,
            ends_unit: self.ends_unit,
            event: StoredEvent {
                revision: self.revision,
                position: self.position,
                time: self.time,
                name: text(self.name, self.name_len),
                version: self.version,
                payload: part(self.payload.start, self.payload.len),
                metadata: part(self.metadata, self.metadata_len.into()),
                is_state: self.is_state,
            },
        }
    }
}
