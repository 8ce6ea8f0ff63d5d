//! The in-memory journal: the log's contract without a disk.
//!
//! A unit is settled when `append` returns. Nothing outlives the journal object; closing keeps the content, so that an
//! engine that stops and starts on it finds everything again.

use crate::error::{Result, StoreError};
use crate::io::Door;
use crate::journal::{EntityKey, Journal, JournalStats, Outcome, Read, StoredEvent, Ticket, Unit};
use hashbrown::{HashMap, HashTable};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Payloads are kept in blocks of this many bytes; a larger payload gets a block of its own.
const BLOCK_BYTES: usize = 1 << 20;

/// A journal that keeps everything in memory.
#[derive(Debug)]
pub struct MemoryJournal {
    door: Arc<dyn Door>,
    inner: Mutex<Inner>,
    settled: AtomicU64,
    forked: AtomicBool,
    opened_by: u32,
}

#[derive(Debug, Default)]
struct Inner {
    entities: Vec<Entity>,
    by_key: HashTable<u32>,
    events: Vec<Event>,
    names: Vec<Arc<str>>,
    name_numbers: HashMap<Arc<str>, u32>,
    blocks: Vec<Vec<u8>>,
    bytes: u64,
    units: u64,
    time: u64,
}

#[derive(Debug)]
struct Entity {
    key: EntityKey,
    events: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    entity: u32,
    name: u32,
    version: u32,
    block: u32,
    start: u32,
    len: u32,
    revision: u64,
    time: u64,
}

impl MemoryJournal {
    /// An empty journal whose times come from `door`.
    #[must_use]
    pub fn new(door: Arc<dyn Door>) -> Self {
        let opened_by = door.pid();
        Self {
            door,
            inner: Mutex::new(Inner::default()),
            settled: AtomicU64::new(0),
            forked: AtomicBool::new(false),
            opened_by,
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.forked.load(Ordering::Relaxed) {
            return Err(StoreError::Forked { path: PathBuf::from("(memory)"), pid: self.opened_by });
        }
        Ok(())
    }
}

impl Inner {
    fn find(&self, entity: &EntityKey) -> Option<u32> {
        self.by_key.find(entity.hash(), |&n| self.entities.get(n as usize).is_some_and(|e| e.key.is(entity))).copied()
    }

    fn insert(&mut self, entity: &EntityKey) -> u32 {
        let n = u32::try_from(self.entities.len()).unwrap_or(u32::MAX);
        self.entities.push(Entity { key: entity.clone(), events: Vec::new() });
        let entities = &self.entities;
        self.by_key.insert_unique(entity.hash(), n, |&n| entities.get(n as usize).map_or(0, |e| e.key.hash()));
        n
    }

    fn revision(&self, entity: &EntityKey) -> u64 {
        self.find(entity).and_then(|n| self.entities.get(n as usize)).map_or(0, |e| e.events.len() as u64)
    }

    fn name_number(&mut self, name: &str) -> u32 {
        // Events of one type tend to follow each other.
        let last = self.events.last().map_or(0, |event| event.name);
        if self.names.get(last as usize).is_some_and(|held| **held == *name) {
            return last;
        }
        if let Some(&n) = self.name_numbers.get(name) {
            return n;
        }
        let n = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.name_numbers.insert(name, n);
        n
    }

    fn keep(&mut self, payload: &[u8]) -> (u32, u32) {
        let fits = self.blocks.last().is_some_and(|b| b.capacity() - b.len() >= payload.len());
        if !fits {
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES.max(payload.len())));
        }
        let number = u32::try_from(self.blocks.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let Some(block) = self.blocks.last_mut() else { return (0, 0) };
        let start = u32::try_from(block.len()).unwrap_or(u32::MAX);
        block.extend_from_slice(payload);
        self.bytes += payload.len() as u64;
        (number, start)
    }

    fn stored(&self, index: usize) -> Option<(&EntityKey, StoredEvent<'_>)> {
        let event = self.events.get(index)?;
        let entity = self.entities.get(event.entity as usize)?;
        let block = self.blocks.get(event.block as usize)?;
        let payload = block.get(event.start as usize..(event.start + event.len) as usize)?;
        let stored = StoredEvent {
            revision: event.revision,
            position: index as u64 + 1,
            time: event.time,
            name: self.names.get(event.name as usize)?,
            version: event.version,
            payload,
        };
        Some((&entity.key, stored))
    }
}

/// An event copied out of the journal, so that it can be shown without a lock.
struct Copied {
    revision: u64,
    position: u64,
    time: u64,
    name: Arc<str>,
    version: u32,
    payload: Vec<u8>,
}

impl Copied {
    fn shown(&self) -> StoredEvent<'_> {
        StoredEvent {
            revision: self.revision,
            position: self.position,
            time: self.time,
            name: &self.name,
            version: self.version,
            payload: &self.payload,
        }
    }
}

impl MemoryJournal {
    /// The events of an entity that follow its first `skip`, up to some bytes, and its last revision.
    fn page(&self, entity: &EntityKey, skip: usize) -> (Vec<Copied>, u64) {
        let inner = self.inner.lock();
        let Some(found) = inner.find(entity).and_then(|n| inner.entities.get(n as usize)) else {
            return (Vec::new(), 0);
        };
        let mut bytes = 0;
        let mut page = Vec::new();
        for &index in found.events.iter().skip(skip) {
            let (Some((_, event)), Some(at)) = (inner.stored(index), inner.events.get(index)) else { break };
            bytes += event.payload.len();
            page.push(Copied {
                revision: event.revision,
                position: event.position,
                time: event.time,
                name: inner.names.get(at.name as usize).map_or_else(|| Arc::from(event.name), Arc::clone),
                version: event.version,
                payload: event.payload.to_vec(),
            });
            if bytes > BLOCK_BYTES {
                break;
            }
        }
        (page, found.events.len() as u64)
    }
}

impl Journal for MemoryJournal {
    fn append(&self, unit: &Unit<'_>) -> Result<Ticket> {
        self.check_process()?;
        let now = self.door.wall_nanos_at_tick();
        let mut inner = self.inner.lock();
        let found = inner.find(unit.entity);
        let held = found.and_then(|n| inner.entities.get(n as usize)).map_or(0, |e| e.events.len() as u64);
        if held + 1 != unit.first_revision {
            return Err(StoreError::Conflict {
                kind: Arc::clone(&unit.entity.kind),
                id: Arc::clone(&unit.entity.id),
                expected: unit.first_revision.saturating_sub(1),
                actual: held,
            });
        }
        let time = now.max(inner.time);
        inner.time = time;
        let entity = found.unwrap_or_else(|| inner.insert(unit.entity));
        for (record, revision) in unit.records.iter().zip(unit.first_revision..) {
            let name = inner.name_number(record.name);
            let (block, start) = inner.keep(record.payload);
            let index = inner.events.len();
            let len = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
            inner.events.push(Event { entity, name, version: record.version, block, start, len, revision, time });
            if let Some(entity) = inner.entities.get_mut(entity as usize) {
                entity.events.push(index);
            }
        }
        inner.units += 1;
        let ticket = inner.units;
        self.settled.store(ticket, Ordering::Release);
        Ok(ticket)
    }

    fn kick(&self) {}

    fn settled(&self) -> Ticket {
        self.settled.load(Ordering::Acquire)
    }

    fn outcome(&self, _ticket: Ticket) -> Outcome {
        Outcome::Stored
    }

    fn on_settled(&self, _wake: Arc<dyn Fn() + Send + Sync>) {}

    fn poisoned(&self) -> Option<StoreError> {
        self.check_process().err()
    }

    fn revision(&self, entity: &EntityKey) -> Result<u64> {
        self.check_process()?;
        Ok(self.inner.lock().revision(entity))
    }

    fn kinds_of(&self, id: &str) -> Vec<Arc<str>> {
        let hash = crate::entities::shard::entity_hash(id);
        let inner = self.inner.lock();
        let mut kinds: Vec<Arc<str>> = inner
            .by_key
            .iter_hash(hash)
            .filter_map(|&n| inner.entities.get(n as usize))
            .filter(|e| &*e.key.id == id)
            .map(|e| Arc::clone(&e.key.kind))
            .collect();
        kinds.sort();
        kinds
    }

    fn read_entity(
        &self,
        entity: &EntityKey,
        from: u64,
        visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
    ) -> Result<u64> {
        self.check_process()?;
        let mut next = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        loop {
            let (page, last) = self.page(entity, next);
            if page.is_empty() {
                return Ok(last);
            }
            next += page.len();
            for event in &page {
                if visit(event.shown()) == Read::Enough {
                    return Ok(last);
                }
            }
        }
    }

    fn read_from(&self, from: u64, visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read) -> Result<()> {
        self.check_process()?;
        let inner = self.inner.lock();
        let first = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        for index in first..inner.events.len() {
            if let Some((key, event)) = inner.stored(index)
                && visit(key, event) == Read::Enough
            {
                break;
            }
        }
        Ok(())
    }

    fn stats(&self) -> JournalStats {
        let inner = self.inner.lock();
        JournalStats {
            position: inner.events.len() as u64,
            entities: inner.entities.len() as u64,
            units: inner.units,
            batches: inner.units,
            bytes: inner.bytes,
            pending: 0,
        }
    }

    fn abandon_after_fork(&self) {
        self.forked.store(true, Ordering::Relaxed);
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
