//! The in-memory journal: the log's contract without a disk.
//!
//! A unit is settled when `append` returns. Nothing outlives the journal object; closing keeps the content, so that an
//! engine that stops and starts on it finds everything again.

mod blocks;
mod follow;

use crate::error::{Result, StoreError};
use crate::feed::{Bell, Filter, Follower, Pool, Waker};
use crate::io::Door;
use crate::journal::{
    Content, EntityKey, Journal, JournalStats, MAX_METADATA_BYTES, Outcome, READ_AT_ONCE, Read, Record, StoredCommand,
    StoredEvent, StoredRejection, Ticket, Unit, Wait,
};
use blocks::{Blocks, Command, EVENT_BYTES, Extra, Head, Place, Stored};
use follow::MemoryFollower;
use hashbrown::{Equivalent, HashMap, HashTable};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is copied for a reader at a time.
const PAGE_BYTES: usize = 1 << 16;
/// Commands copied for a reader at a time.
const PAGE_COMMANDS: usize = 64;
/// Notes shared with a reader at a time.
const PAGE_NOTES: usize = 64;

/// A journal that keeps everything in memory.
#[derive(Debug)]
pub struct MemoryJournal {
    door: Arc<dyn Door>,
    inner: Mutex<Inner>,
    settled: AtomicU64,
    forked: AtomicBool,
    opened_by: u32,
    id: [u8; 16],
    bell: Bell,
    /// Buffers for chunks.
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Inner {
    entities: Vec<Entity>,
    by_key: HashTable<u32>,
    types: Types,
    blocks: Blocks,
    notes: BTreeMap<Arc<str>, Arc<[u8]>>,
    /// Entities with an event or a state.
    stored: u64,
    events: u64,
    units: u64,
    bytes: u64,
    time: u64,
}

#[derive(Debug)]
struct Entity {
    key: EntityKey,
    revision: u64,
    last: Option<Place>,
}

/// The types that events have had, by number. Readers keep the list as it was.
#[derive(Debug, Default)]
struct Types {
    all: Arc<Vec<Type>>,
    numbers: HashMap<Type, usize>,
    last: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Type {
    name: Arc<str>,
    version: u32,
}

#[derive(Hash)]
struct Wanted<'a> {
    name: &'a str,
    version: u32,
}

impl Equivalent<Type> for Wanted<'_> {
    #[inline]
    fn equivalent(&self, held: &Type) -> bool {
        self.version == held.version && *self.name == *held.name
    }
}

impl Types {
    #[inline]
    fn number(&mut self, record: &Record<'_>) -> usize {
        let wanted = Wanted { name: record.name, version: record.version };
        // Events of one type tend to follow each other.
        if !self.all.get(self.last).is_some_and(|held| wanted.equivalent(held)) {
            self.last = self.numbers.get(&wanted).copied().unwrap_or_else(|| self.add(record));
        }
        self.last
    }

    fn add(&mut self, record: &Record<'_>) -> usize {
        let (number, added) = (self.all.len(), Type { name: Arc::from(record.name), version: record.version });
        Arc::make_mut(&mut self.all).push(added.clone());
        self.numbers.insert(added, number);
        number
    }
}

impl MemoryJournal {
    /// An empty journal whose times come from `door`.
    #[must_use]
    pub fn new(door: Arc<dyn Door>) -> Self {
        let opened_by = door.pid();
        let mut id = [0; 16];
        door.random(&mut id);
        Self {
            door,
            inner: Mutex::new(Inner::default()),
            settled: AtomicU64::new(0),
            forked: AtomicBool::new(false),
            opened_by,
            id,
            bell: Bell::default(),
            pool: Arc::default(),
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.forked.load(Ordering::Relaxed) {
            return Err(StoreError::Forked { path: PathBuf::from("(memory)"), pid: self.opened_by });
        }
        Ok(())
    }
}

impl MemoryJournal {
    /// Where the entity's last unit is, and its revision.
    fn last_place(&self, entity: &EntityKey) -> (Option<Place>, u64) {
        self.inner.lock().get(entity).map_or((None, 0), |held| (held.last, held.revision))
    }
}

impl Inner {
    fn find(&self, entity: &EntityKey) -> Option<u32> {
        self.by_key.find(entity.hash(), |&n| self.entities.get(n as usize).is_some_and(|e| e.key.is(entity))).copied()
    }

    fn get(&self, entity: &EntityKey) -> Option<&Entity> {
        self.entities.get(self.find(entity)? as usize)
    }

    fn insert(&mut self, entity: &EntityKey) -> u32 {
        let n = u32::try_from(self.entities.len()).unwrap_or(u32::MAX);
        self.entities.push(Entity { key: entity.clone(), revision: 0, last: None });
        let entities = &self.entities;
        self.by_key.insert_unique(entity.hash(), n, |&n| entities.get(n as usize).map_or(0, |e| e.key.hash()));
        n
    }

    fn append(&mut self, unit: &Unit<'_>, now: u64) -> Result<Ticket> {
        if let Content::Note(value) = unit.content {
            self.keep_note(&unit.entity.id, value);
            self.units += 1;
            return Ok(self.units);
        }
        let found = self.find(unit.entity);
        let (actual, before) =
            found.and_then(|n| self.entities.get(n as usize)).map_or((0, None), |e| (e.revision, e.last));
        if actual + 1 != unit.first_revision {
            return Err(StoreError::Conflict {
                kind: Arc::clone(&unit.entity.kind),
                id: Arc::clone(&unit.entity.id),
                expected: unit.first_revision.saturating_sub(1),
                actual,
            });
        }
        let entity = found.unwrap_or_else(|| self.insert(unit.entity));
        self.time = self.time.max(now);
        let (is_state, records) = match &unit.content {
            Content::Events(events) => (false, *events),
            Content::State(state) => (true, std::slice::from_ref(state)),
            Content::Note(_) => (false, &[][..]),
        };
        let command = unit.command.map(|command| Command {
            id: command.id,
            fingerprint: command.fingerprint,
            rejection: command.rejection.map(|record| (self.types.number(&record) as u64, record.payload)),
        });
        let extra = Extra { is_state, metadata: unit.metadata, command };
        let events = records.len() as u64;
        let head =
            Head { entity, before, revision: unit.first_revision, position: self.events + 1, time: self.time, events };
        let payloads: usize = records.iter().map(|record| record.payload.len()).sum();
        let place = self.blocks.begin(&head, &extra, payloads + records.len() * EVENT_BYTES);
        for record in records {
            self.blocks.event(self.types.number(record) as u64, record.payload);
        }
        if let Some(entity) = self.entities.get_mut(entity as usize) {
            entity.revision += events;
            entity.last = Some(place);
        }
        self.stored += u64::from(actual == 0 && events > 0);
        self.bytes += payloads as u64;
        self.events += events;
        self.units += 1;
        Ok(self.units)
    }

    fn keep_note(&mut self, name: &Arc<str>, value: &[u8]) {
        if value.is_empty() {
            self.notes.remove(name);
        } else {
            self.notes.insert(Arc::clone(name), Arc::from(value));
        }
    }

    /// Some of the notes that start with `prefix` and come behind `after`.
    fn some_notes(&self, prefix: &str, after: Option<&str>) -> Vec<(Arc<str>, Arc<[u8]>)> {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let named =
            self.notes.range::<str, _>((start, Bound::Unbounded)).take_while(|(name, _)| name.starts_with(prefix));
        named.take(PAGE_NOTES).map(|(name, value)| (Arc::clone(name), Arc::clone(value))).collect()
    }

    /// Adds some of the entity's units from `next` back to the one that holds revision `from`; gives the next one to add.
    fn add_places(&self, mut next: Option<Place>, from: u64, places: &mut Vec<Place>) -> Option<Place> {
        for _ in 0..READ_AT_ONCE {
            let place = next?;
            let (revision, before) = self.blocks.link(place)?;
            places.push(place);
            next = before.filter(|_| revision > from);
        }
        next
    }

    /// Some of the entity's units from `next` back, which moves on to what comes behind them.
    fn back_from<'a>(&'a self, next: &'a mut Option<Place>) -> impl Iterator<Item = Stored<'a>> {
        let mut step = move || {
            let unit = self.blocks.unit((*next)?)?;
            *next = unit.head.before;
            Some(unit)
        };
        (0..READ_AT_ONCE).map_while(move |_| step())
    }
}

/// Refuses to look at more units where the reader is not to wait.
fn go_on(wait: Wait, next: Option<Place>) -> Result<()> {
    if wait == Wait::Never && next.is_some() { Err(StoreError::WouldWait) } else { Ok(()) }
}

/// Events copied out of the journal, so that they can be shown without a lock.
struct Page {
    types: Arc<Vec<Type>>,
    keys: Vec<EntityKey>,
    events: Vec<Copied>,
    bytes: Vec<u8>,
}

struct Copied {
    key: usize,
    kind: u64,
    revision: u64,
    position: u64,
    time: u64,
    payload: Range<usize>,
    metadata: Range<usize>,
    is_state: bool,
}

impl Page {
    fn new(inner: &Inner) -> Self {
        Self { types: Arc::clone(&inner.types.all), keys: Vec::new(), events: Vec::new(), bytes: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.events.len() * size_of::<Copied>() >= PAGE_BYTES
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Adds the events of a unit, but for its first `skip`, or its state.
    fn add(&mut self, unit: &Stored<'_>, skip: u64, key: &EntityKey) {
        let Stored { head, extra, events } = *unit;
        if skip >= head.events {
            return;
        }
        let metadata = self.copy(extra.metadata);
        if self.keys.last().is_none_or(|last| !last.is(key)) {
            self.keys.push(key.clone());
        }
        for (n, (kind, payload)) in (0..).zip(events) {
            if n < skip {
                continue;
            }
            let payload = self.copy(payload);
            self.events.push(Copied {
                key: self.keys.len() - 1,
                kind,
                revision: head.revision + n,
                position: head.position + n,
                time: head.time,
                payload,
                metadata: metadata.clone(),
                is_state: extra.is_state,
            });
        }
    }

    fn shown(&self) -> impl Iterator<Item = (&EntityKey, StoredEvent<'_>)> {
        self.events.iter().filter_map(|event| {
            let of = self.types.get(usize::try_from(event.kind).ok()?)?;
            let payload = self.bytes.get(event.payload.clone())?;
            let metadata = self.bytes.get(event.metadata.clone())?;
            let Copied { revision, position, time, is_state, .. } = *event;
            let (name, version) = (&*of.name, of.version);
            let shown = StoredEvent { revision, position, time, name, version, payload, metadata, is_state };
            Some((self.keys.get(event.key)?, shown))
        })
    }
}

/// What is stored of a command, copied out of the journal.
struct CopiedCommand {
    id: String,
    fingerprint: [u8; 16],
    revision: u64,
    time: u64,
    rejection: Option<(u64, Vec<u8>)>,
}

impl CopiedCommand {
    fn of(unit: &Stored<'_>) -> Option<Self> {
        let Stored { head, extra, .. } = unit;
        let Command { id, fingerprint, rejection } = extra.command?;
        Some(Self {
            id: id.to_owned(),
            fingerprint,
            revision: (head.revision + head.events).saturating_sub(1),
            time: head.time,
            rejection: rejection.map(|(kind, payload)| (kind, payload.to_vec())),
        })
    }

    fn shown<'a>(&'a self, types: &'a [Type]) -> Option<StoredCommand<'a>> {
        let rejection = match &self.rejection {
            None => None,
            Some((kind, payload)) => {
                let of = types.get(usize::try_from(*kind).ok()?)?;
                Some(StoredRejection { name: &of.name, version: of.version, payload })
            }
        };
        let Self { id, fingerprint, revision, time, .. } = self;
        Some(StoredCommand { id, fingerprint: *fingerprint, revision: *revision, time: *time, rejection })
    }
}

impl Journal for MemoryJournal {
    fn append(&self, unit: &Unit<'_>) -> Result<Ticket> {
        self.check_process()?;
        if unit.metadata.len() > MAX_METADATA_BYTES {
            return Err(StoreError::too_large(unit.entity, unit.metadata.len(), MAX_METADATA_BYTES));
        }
        let now = self.door.wall_nanos_at_tick();
        let mut inner = self.inner.lock();
        let ticket = inner.append(unit, now)?;
        self.settled.store(ticket, Ordering::Release);
        drop(inner);
        self.bell.ring();
        Ok(ticket)
    }

    fn is_congested(&self) -> bool {
        false
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
        Ok(self.inner.lock().get(entity).map_or(0, |held| held.revision))
    }

    fn kinds_of(&self, id: &str) -> Vec<Arc<str>> {
        let hash = crate::entities::shard::entity_hash(id);
        let inner = self.inner.lock();
        let mut kinds: Vec<Arc<str>> = inner
            .by_key
            .iter_hash(hash)
            .filter_map(|&n| inner.entities.get(n as usize))
            .filter(|e| e.revision > 0 && &*e.key.id == id)
            .map(|e| Arc::clone(&e.key.kind))
            .collect();
        kinds.sort();
        kinds
    }

    fn read_entity(
        &self,
        entity: &EntityKey,
        from: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
    ) -> Result<u64> {
        self.check_process()?;
        let (mut next, last) = self.last_place(entity);
        next = next.filter(|_| from <= last);
        let mut places = Vec::new();
        while next.is_some() {
            next = self.inner.lock().add_places(next, from, &mut places);
            go_on(wait, next)?;
        }
        while !places.is_empty() {
            let page = {
                let inner = self.inner.lock();
                let mut page = Page::new(&inner);
                while !page.is_full()
                    && let Some(unit) = places.pop().and_then(|place| inner.blocks.unit(place))
                {
                    if !unit.extra.is_state {
                        page.add(&unit, from.saturating_sub(unit.head.revision), entity);
                    }
                }
                page
            };
            if page.shown().any(|(_, event)| visit(event) == Read::Enough) {
                break;
            }
        }
        Ok(last)
    }

    fn read_state(
        &self,
        entity: &EntityKey,
        at: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<u64> {
        self.check_process()?;
        let (mut next, last) = self.last_place(entity);
        while next.is_some() {
            let page = {
                let inner = self.inner.lock();
                let wanted = |unit: &Stored<'_>| unit.extra.is_state && unit.head.revision <= at;
                let found = inner.back_from(&mut next).find(wanted);
                found.map(|unit| {
                    let mut page = Page::new(&inner);
                    page.add(&unit, 0, entity);
                    page
                })
            };
            if let Some(page) = page {
                page.shown().for_each(|(_, state)| visit(state));
                break;
            }
            go_on(wait, next)?;
        }
        Ok(last)
    }

    fn read_commands(
        &self,
        entity: &EntityKey,
        since: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredCommand<'_>) -> Read,
    ) -> Result<()> {
        self.check_process()?;
        let (mut next, _) = self.last_place(entity);
        let mut passed = 0;
        while next.is_some() {
            let (page, types) = {
                let inner = self.inner.lock();
                let (mut page, mut is_over) = (Vec::new(), false);
                for unit in inner.back_from(&mut next) {
                    passed += 1;
                    is_over = unit.head.time < since;
                    page.extend(CopiedCommand::of(&unit).filter(|_| !is_over));
                    if is_over || page.len() >= PAGE_COMMANDS {
                        break;
                    }
                }
                next = next.filter(|_| !is_over);
                (page, Arc::clone(&inner.types.all))
            };
            if page.iter().filter_map(|command| command.shown(&types)).any(|command| visit(command) == Read::Enough) {
                break;
            }
            go_on(wait, next.filter(|_| passed >= READ_AT_ONCE))?;
        }
        Ok(())
    }

    fn read_from(&self, from: u64, visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read) -> Result<()> {
        self.check_process()?;
        let mut place = self.inner.lock().blocks.seek(from);
        loop {
            let page = {
                let inner = self.inner.lock();
                let mut page = Page::new(&inner);
                while !page.is_full()
                    && let Some(unit) = inner.blocks.unit(place)
                    && let Some(entity) = inner.entities.get(unit.head.entity as usize)
                {
                    page.add(&unit, from.saturating_sub(unit.head.position), &entity.key);
                    place = unit.events.end();
                }
                page
            };
            if page.events.is_empty() || page.shown().any(|(key, event)| visit(key, event) == Read::Enough) {
                return Ok(());
            }
        }
    }

    fn follow(self: Arc<Self>, after: u64, filter: Filter, wake: Waker) -> Result<Box<dyn Follower>> {
        self.check_process()?;
        Ok(Box::new(MemoryFollower::new(self, after, filter, wake)))
    }

    fn store_id(&self) -> [u8; 16] {
        self.id
    }

    fn position_at(&self, time: u64) -> Result<u64> {
        self.check_process()?;
        let inner = self.inner.lock();
        Ok(inner.blocks.position_at(time).unwrap_or(inner.events))
    }

    fn read_notes(&self, prefix: &str, visit: &mut dyn FnMut(&str, &[u8]) -> Read) -> Result<()> {
        self.check_process()?;
        let mut after: Option<Arc<str>> = None;
        loop {
            let notes = self.inner.lock().some_notes(prefix, after.as_deref());
            if notes.iter().any(|(name, value)| visit(name, value) == Read::Enough) {
                return Ok(());
            }
            let Some((last, _)) = notes.last() else { return Ok(()) };
            after = Some(Arc::clone(last));
        }
    }

    fn stats(&self) -> JournalStats {
        let inner = self.inner.lock();
        JournalStats {
            position: inner.events,
            entities: inner.stored,
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
