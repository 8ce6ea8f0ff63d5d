//! What an engine needs of a store.
//!
//! A unit (all events of one command) is appended without waiting and gets a [`Ticket`]; tickets are settled in order,
//! and a settled ticket has an [`outcome`](Journal::outcome). Whoever waits is told once per batch by the waker given to
//! [`on_settled`](Journal::on_settled), never per unit. The log and the memory journal implement this trait and pass the same tests; nothing that
//! uses it can tell which it has.

use crate::error::{Result, StoreError};
use std::sync::Arc;

/// Counts accepted units of one opened journal, from 1. 0 stands for "nothing to wait for" and is always settled.
pub type Ticket = u64;

/// Who an event belongs to. Made once per live entity; the hash is stable across runs and machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityKey {
    /// The kind's name in the store.
    pub kind: Arc<str>,
    /// The entity's id.
    pub id: Arc<str>,
    hash: u64,
}

impl EntityKey {
    /// The key of an entity. Lengths are the caller's to check ([`MAX_NAME_BYTES`]).
    #[must_use]
    pub fn new(kind: Arc<str>, id: Arc<str>) -> Self {
        let hash = crate::entities::shard::entity_hash(&id);
        Self { kind, id, hash }
    }

    /// Whether both name the same entity; quick where both come from one live entity.
    #[must_use]
    #[inline]
    pub fn is(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.id, &other.id) && Arc::ptr_eq(&self.kind, &other.kind)) || self == other
    }

    /// The stable hash of the id: its remainder by the store's shard count is the entity's shard.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Bytes that a kind, an id or a type name may have.
pub const MAX_NAME_BYTES: usize = 255;

/// One event as it is handed over.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The event type's stored name.
    pub name: &'a str,
    /// The event type's stored version.
    pub version: u32,
    /// The encoded event.
    pub payload: &'a [u8],
}

/// All events of one command: stored together or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// Whose events these are.
    pub entity: &'a EntityKey,
    /// The revision of the first event; it must follow the entity's last accepted one.
    pub first_revision: u64,
    /// The events, in emitted order; at least one.
    pub records: &'a [Record<'a>],
}

/// What became of a settled unit.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is durable.
    Stored,
    /// Nothing of it was written, and nothing of later units of that entity that were accepted before this was known.
    Refused(StoreError),
    /// Its write failed: it may or may not be stored.
    Unknown(StoreError),
}

/// One stored event, borrowed from a read buffer.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// The event's revision, from 1.
    pub revision: u64,
    /// Its place in the store, from 1.
    pub position: u64,
    /// When it was committed, nanoseconds since the Unix epoch; never runs backwards.
    pub time: u64,
    /// The event type's stored name.
    pub name: &'a str,
    /// The event type's stored version.
    pub version: u32,
    /// The encoded event.
    pub payload: &'a [u8],
}

/// Whether a reader wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Go on.
    More,
    /// Stop here, without an error.
    Enough,
}

/// Counters of one opened journal, read in one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Position of the last durable event, 0 in an empty store.
    pub position: u64,
    /// Entities with at least one durable event.
    pub entities: u64,
    /// Units accepted since the journal was opened.
    pub units: u64,
    /// Batches written since the journal was opened (one sync each).
    pub batches: u64,
    /// Bytes of batches written since the journal was opened.
    pub bytes: u64,
    /// Units accepted and not settled yet.
    pub pending: u64,
}

/// A store of units. An entity has one writer at a time: units of two who do not know of each other are told apart by
/// their revisions alone.
///
/// Safe to call from several threads. No call but [`close`](Journal::close) and the reads waits for a disk.
pub trait Journal: Send + Sync {
    /// Accepts a unit for the next batch. The bytes are copied; the order of calls is the order in the store.
    ///
    /// # Errors
    /// `TooLarge`, `Poisoned`, `Forked`, `Closed`: the unit was not accepted and no trace of it exists.
    fn append(&self, unit: &Unit<'_>) -> Result<Ticket>;

    /// Lets the committer start on what was accepted. Cheap; calling it more often makes smaller batches.
    fn kick(&self);

    /// The highest ticket up to which every unit has an outcome; `u64::MAX` once the journal is poisoned.
    fn settled(&self) -> Ticket;

    /// What became of a settled unit.
    fn outcome(&self, ticket: Ticket) -> Outcome;

    /// Registers what is called, from any thread and without arguments, after tickets have been settled.
    fn on_settled(&self, wake: Arc<dyn Fn() + Send + Sync>);

    /// What closed the journal to writing, if anything did: a failed write, or a fork.
    fn poisoned(&self) -> Option<StoreError>;

    /// The entity's last durable revision; 0 where it has none.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn revision(&self, entity: &EntityKey) -> Result<u64>;

    /// The kinds under which `id` has durable events, sorted.
    fn kinds_of(&self, id: &str) -> Vec<Arc<str>>;

    /// Visits the entity's durable events from `from` (at least 1) in order of revision; returns the last durable revision.
    /// No lock is held during a visit.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn read_entity(&self, entity: &EntityKey, from: u64, visit: &mut dyn FnMut(StoredEvent<'_>) -> Read)
    -> Result<u64>;

    /// Visits every durable event from position `from` (at least 1) in order of position.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn read_from(&self, from: u64, visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read) -> Result<()>;

    /// Counters, in one consistent snapshot.
    fn stats(&self) -> JournalStats;

    /// Called in a forked child: lets go of the lock and of files, and refuses everything from now on. Takes no lock
    /// that another thread of the parent could have held.
    fn abandon_after_fork(&self);

    /// Commits what was accepted, marks the end as clean and closes. Idempotent.
    ///
    /// # Errors
    /// The failure of the last commit, if it failed.
    fn close(&self) -> Result<()>;
}
