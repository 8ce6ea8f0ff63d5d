//! What is stored of one entity, its events or a state, copied out of a journal in chunks.
//!
//! A chunk owns its bytes: it outlives the read that filled it, may go to another thread, and can be folded while
//! nothing of the journal is held. However long a history is, one chunk of it is in memory, unless the taker keeps
//! more. What a payload means is not known here.

use crate::error::Result;
use crate::journal::{EntityKey, Journal, Read, StoredEvent, Wait};

/// Events of a full chunk.
const CHUNK_EVENTS: usize = 256;
/// Payload bytes of a full chunk; its last event may go over. Small enough to stay in a processor's cache.
const CHUNK_BYTES: usize = 64 << 10;

/// The stored identity of an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredType {
    /// Its stored name.
    pub name: Box<str>,
    /// Its stored version.
    pub version: u32,
}

impl StoredType {
    fn is_of(&self, event: &StoredEvent<'_>) -> bool {
        self.version == event.version && *self.name == *event.name
    }
}

/// One event of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEvent<'a> {
    /// The event's revision.
    pub revision: u64,
    /// Its type.
    pub stored: &'a StoredType,
    /// The encoded event.
    pub payload: &'a [u8],
}

/// Events that follow each other, with their payloads.
#[derive(Debug, Default)]
pub struct Chunk {
    types: Vec<StoredType>,
    events: Vec<Entry>,
    bytes: Vec<u8>,
}

/// An event whose payload goes from the end of the one before to `end`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    revision: u64,
    stored: usize,
    end: usize,
}

impl Chunk {
    /// Its events, in order.
    #[inline]
    pub fn events(&self) -> impl Iterator<Item = ChunkEvent<'_>> {
        let mut start = 0;
        self.events.iter().filter_map(move |&Entry { revision, stored, end }| {
            let payload = self.bytes.get(start..end)?;
            start = end;
            Some(ChunkEvent { revision, stored: self.types.get(stored)?, payload })
        })
    }

    fn is_full(&self) -> bool {
        self.events.len() >= CHUNK_EVENTS || self.bytes.len() >= CHUNK_BYTES
    }

    #[inline]
    fn push(&mut self, event: &StoredEvent<'_>) {
        let stored = self.number_of(event);
        self.bytes.extend_from_slice(event.payload);
        self.events.push(Entry { revision: event.revision, stored, end: self.bytes.len() });
    }

    fn number_of(&mut self, event: &StoredEvent<'_>) -> usize {
        // Events of one type tend to follow each other.
        let last = self.events.last().map_or(0, |entry| entry.stored);
        if self.types.get(last).is_some_and(|stored| stored.is_of(event)) {
            return last;
        }
        if let Some(found) = self.types.iter().position(|stored| stored.is_of(event)) {
            return found;
        }
        self.types.push(StoredType { name: Box::from(event.name), version: event.version });
        self.types.len() - 1
    }

    fn clear(&mut self) {
        self.events.clear();
        self.bytes.clear();
    }
}

/// What is read of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its durable events from a revision (at least 1) on, in order.
    Events {
        /// The first revision.
        from: u64,
    },
    /// The latest of its durable states.
    State {
        /// The latest version that counts.
        at: u64,
    },
}

/// Hands out what is durable of the entity; returns the last durable revision. `take` may keep a chunk by putting another into its place; what it leaves there is filled again. What stands before
/// a failure is handed out before the failure is returned. No lock is held meanwhile.
///
/// # Errors
/// As [`Journal::read_entity`] and [`Journal::read_state`].
pub fn read(
    journal: &dyn Journal,
    entity: &EntityKey,
    wanted: Wanted,
    wait: Wait,
    take: &mut dyn FnMut(&mut Chunk) -> Read,
) -> Result<u64> {
    let mut chunk = Chunk::default();
    let mut wants = Read::More;
    let last = match wanted {
        Wanted::Events { from } => journal.read_entity(entity, from, wait, &mut |event| {
            chunk.push(&event);
            if chunk.is_full() {
                wants = take(&mut chunk);
                chunk.clear();
            }
            wants
        }),
        Wanted::State { at } => journal.read_state(entity, at, wait, &mut |state| chunk.push(&state)),
    };
    if wants == Read::More && !chunk.events.is_empty() {
        take(&mut chunk);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::RealDoor;
    use crate::journal::{Content, Record, Unit};
    use crate::memory::MemoryJournal;
    use std::sync::Arc;

    type Copied = (u64, String, u32, Vec<u8>);

    fn key() -> EntityKey {
        EntityKey::new(Arc::from("Account"), Arc::from("a"))
    }

    /// A journal that holds one event per payload, of two types by turns.
    fn journal(payloads: &[Vec<u8>]) -> MemoryJournal {
        let journal = MemoryJournal::new(Arc::new(RealDoor));
        for (payload, revision) in payloads.iter().zip(1..) {
            let (name, version) = if revision % 2 == 1 { ("credited", 1) } else { ("debited", 2) };
            let content = Content::Events(&[Record { name, version, payload }]);
            let unit = Unit { entity: &key(), first_revision: revision, content, command: None, metadata: &[] };
            journal.append(&unit).unwrap();
        }
        journal
    }

    fn copied(chunk: &Chunk) -> Vec<Copied> {
        let copy = |event: ChunkEvent<'_>| {
            (event.revision, event.stored.name.to_string(), event.stored.version, event.payload.to_vec())
        };
        chunk.events().map(copy).collect()
    }

    /// The chunks of a history from a revision, as many as are wanted.
    fn chunks(journal: &MemoryJournal, from: u64, wanted: usize) -> Vec<Vec<Copied>> {
        let mut seen = Vec::new();
        let last = read(journal, &key(), Wanted::Events { from }, Wait::Never, &mut |chunk| {
            seen.push(copied(chunk));
            if seen.len() < wanted { Read::More } else { Read::Enough }
        });
        assert_eq!(last.unwrap(), journal.revision(&key()).unwrap());
        seen
    }

    #[test]
    fn a_history_comes_in_full_chunks_and_a_rest_byte_for_byte() {
        let payloads: Vec<_> = (0..2 * CHUNK_EVENTS + 3).map(|n| vec![b'x'; n % 7]).collect();
        let seen = chunks(&journal(&payloads), 1, usize::MAX);
        assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [CHUNK_EVENTS, CHUNK_EVENTS, 3]);
        for ((revision, name, version, payload), (number, stored)) in seen.concat().iter().zip((1..).zip(&payloads)) {
            assert_eq!((*revision, payload), (number, stored));
            assert_eq!((&**name, *version), if number % 2 == 1 { ("credited", 1) } else { ("debited", 2) });
        }
    }

    #[test]
    fn a_chunk_of_large_payloads_ends_early() {
        let payloads = vec![vec![1; CHUNK_BYTES - 1], vec![2; 10], vec![3; 2 * CHUNK_BYTES], vec![4]];
        let sizes: Vec<_> = chunks(&journal(&payloads), 1, usize::MAX).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[test]
    fn a_history_starts_where_asked_and_ends_with_enough() {
        let journal = journal(&vec![vec![7; CHUNK_BYTES]; 5]);
        let seen = chunks(&journal, 3, 2);
        assert_eq!(seen.concat().iter().map(|event| event.0).collect::<Vec<_>>(), [3, 4]);
        assert!(chunks(&journal, 6, 1).is_empty());
    }

    #[test]
    fn nothing_is_handed_out_of_an_entity_that_is_not_stored() {
        assert!(chunks(&journal(&[]), 1, 1).is_empty());
    }

    #[test]
    fn a_taken_chunk_is_kept_while_the_next_is_filled() {
        let journal = journal(&vec![vec![7; 3]; CHUNK_EVENTS + 1]);
        let mut kept = Vec::new();
        let take = &mut |chunk: &mut Chunk| {
            kept.push(std::mem::take(chunk));
            Read::More
        };
        read(&journal, &key(), Wanted::Events { from: 1 }, Wait::Never, take).unwrap();
        let revisions: Vec<_> = kept.iter().flat_map(copied).map(|event| event.0).collect();
        assert_eq!(revisions, (1..=CHUNK_EVENTS as u64 + 1).collect::<Vec<_>>());
    }
}
