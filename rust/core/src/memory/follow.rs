//! Follows a memory journal. What matches is copied while the journal is held, some units at a time.

use super::blocks::{Place, Stored};
use super::{Inner, MemoryJournal, PAGE_BYTES};
use crate::entities::shard::{DEFAULT_SHARDS, shard_of};
use crate::error::Result;
use crate::feed::{Bytes, Chunk, Entry, Filter, Follower, Listener, Owner, Pool, Span, Waker};
use crate::journal::{READ_AT_ONCE, Wait};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug)]
pub(super) struct MemoryFollower {
    journal: Arc<MemoryJournal>,
    listener: Listener,
    filter: Filter,
    position: u64,
    /// Where the next unit starts.
    place: Place,
}

impl MemoryFollower {
    pub(super) fn new(journal: Arc<MemoryJournal>, after: u64, filter: Filter, wake: Waker) -> Self {
        let listener = Listener::new(&journal.bell, wake);
        let place = journal.inner.lock().blocks.seek(after.saturating_add(1));
        Self { journal, listener, filter, position: after, place }
    }
}

impl Follower for MemoryFollower {
    fn next(&mut self, _wait: Wait) -> Result<Option<Chunk>> {
        self.journal.check_process()?;
        let mut copy = Copy::new(&self.filter, self.position, self.journal.pool.take(PAGE_BYTES));
        let mut upto = self.position;
        let has_more = {
            let inner = self.journal.inner.lock();
            for _ in 0..READ_AT_ONCE {
                let Some(unit) = inner.blocks.unit(self.place).filter(|_| copy.bytes.len() < PAGE_BYTES) else { break };
                copy.unit(&inner, &unit);
                self.place = unit.events.end();
                upto = upto.max((unit.head.position + unit.head.events).saturating_sub(1));
            }
            let has_more = upto > self.position || inner.blocks.unit(self.place).is_some();
            if !has_more {
                // While nobody can append: an append after this sees it.
                self.journal.bell.expect();
            }
            has_more
        };
        self.position = upto;
        Ok(has_more.then(|| copy.chunk(&self.journal.pool, upto)))
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for MemoryFollower {
    fn drop(&mut self) {
        // In a forked child a thread of the parent may hold the bell for ever.
        if !self.journal.forked.load(Ordering::Relaxed) {
            self.listener.leave(&self.journal.bell);
        }
    }
}

/// A chunk that is being copied. Events of one entity and of one type tend to follow each other: names are copied once.
struct Copy<'a> {
    filter: &'a Filter,
    after: u64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    entity: Option<(u32, Span)>,
    type_name: Option<(u64, Span)>,
}

impl<'a> Copy<'a> {
    fn new(filter: &'a Filter, after: u64, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { filter, after, bytes, entries: Vec::new(), entity: None, type_name: None }
    }

    fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    }

    /// Adds what matches of a unit.
    fn unit(&mut self, inner: &Inner, unit: &Stored<'_>) {
        let Stored { head, extra, events } = *unit;
        let Some(key) = inner.entities.get(head.entity as usize).map(|entity| &entity.key) else { return };
        let (kind, id) = (key.kind.as_bytes(), key.id.as_bytes());
        let shard = shard_of(key.hash(), DEFAULT_SHARDS);
        if !self.filter.takes_unit(&Owner { kind, id, shard, is_state: extra.is_state }) {
            return;
        }
        let mut metadata = None;
        for (n, (kind_number, payload)) in (0..).zip(events) {
            let Some(of) = usize::try_from(kind_number).ok().and_then(|number| inner.types.all.get(number)) else {
                return;
            };
            if head.position + n <= self.after || !self.filter.takes_name(of.name.as_bytes()) {
                continue;
            }
            let names = match self.entity {
                Some((entity, names)) if entity == head.entity => names,
                _ => {
                    let names = self.put(kind);
                    self.put(id);
                    self.entity.insert((head.entity, names)).1
                }
            };
            let name = match self.type_name {
                Some((number, name)) if number == kind_number => name,
                _ => {
                    let name = self.put(of.name.as_bytes());
                    self.type_name.insert((kind_number, name)).1
                }
            };
            let metadata = match metadata {
                Some(span) => span,
                None => *metadata.insert(self.put(extra.metadata)),
            };
            let payload = self.put(payload);
            self.entries.push(Entry {
                position: head.position + n,
                revision: head.revision + n,
                time: head.time,
                version: of.version,
                names: names.start,
                name: name.start,
                metadata: metadata.start,
                payload,
                kind_len: kind.len() as u16,
                id_len: id.len() as u16,
                name_len: name.len as u16,
                metadata_len: metadata.len as u16,
                shard,
                is_state: extra.is_state,
                ends_unit: false,
            });
        }
        if metadata.is_some()
            && let Some(last) = self.entries.last_mut()
        {
            last.ends_unit = true;
        }
    }

    fn chunk(self, pool: &Arc<Pool>, upto: u64) -> Chunk {
        if self.entries.is_empty() {
            return Chunk::nothing(upto);
        }
        Chunk::new(Arc::new(Bytes::new(self.bytes, pool)), self.entries, upto)
    }
}
