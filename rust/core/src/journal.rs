//! What an engine needs of a store.
//!
//! A unit (all that one command stores) is appended without waiting and gets a [`Ticket`]; tickets are settled in order,
//! and a settled ticket has an [`outcome`](Journal::outcome). Whoever waits is told once per batch by the waker given to
//! [`on_settled`](Journal::on_settled), never per unit. The log and the memory journal implement this trait and pass the same tests; nothing that
//! uses it can tell which it has.
//!
//! What is stored is not understood here: payloads, fingerprints and metadata are bytes, and whether an entity has events or
//! states is the engine's to keep. A reader of the one passes over the other.

use crate::error::{Result, StoreError};
use crate::feed::{Filter, Follower, Waker};
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

/// The kind of the units that hold notes. No entity has it: a kind that users name is not empty.
pub const NOTES: &str = "";

/// Bytes that the value of a note may have.
pub const MAX_NOTE_BYTES: usize = 64 << 10;

/// Bytes that the metadata of a unit may have.
pub const MAX_METADATA_BYTES: usize = 16 << 10;

/// A value of a stored type as it is handed over: an event, a state or a rejection.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The type's stored name.
    pub name: &'a str,
    /// The type's stored version.
    pub version: u32,
    /// The encoded value.
    pub payload: &'a [u8],
}

/// What a command changes.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Events in emitted order, each with a revision and a position of its own. None is allowed beside a [`Command`]
    /// alone: such a unit takes neither revision nor position.
    Events(&'a [Record<'a>]),
    /// A durable state. It takes one revision, its version, and one position.
    State(Record<'a>),
    /// The value of a [note](Journal::write_note), whose name is the id. It takes neither revision nor position.
    Note(&'a [u8]),
}

impl Content<'_> {
    /// How many revisions and positions it takes.
    #[must_use]
    #[inline]
    pub fn count(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::State(_) => 1,
            Self::Note(_) => 0,
        }
    }
}

/// What is kept of a command, so that it is answered and not run when it comes again.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// Its id, 1 to [`MAX_NAME_BYTES`] bytes, of the entity alone.
    pub id: &'a str,
    /// Tells two commands of one id apart.
    pub fingerprint: [u8; 16],
    /// Why it was refused, if it was.
    pub rejection: Option<Record<'a>>,
}

/// All that one command stores: together or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// Whose it is.
    pub entity: &'a EntityKey,
    /// The revision after the entity's last accepted one: of the first event, or of the state. A unit without content names
    /// it as well, and leaves it to the next.
    pub first_revision: u64,
    /// What the command changes.
    pub content: Content<'a>,
    /// What is kept of the command.
    pub command: Option<Command<'a>>,
    /// Bytes shown with every event or state of the unit, at most [`MAX_METADATA_BYTES`].
    pub metadata: &'a [u8],
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

/// One stored event or state, borrowed from a read buffer.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// The event's revision or the state's version, from 1.
    pub revision: u64,
    /// Its place in the store, from 1.
    pub position: u64,
    /// When it was committed, nanoseconds since the Unix epoch; never runs backwards.
    pub time: u64,
    /// The type's stored name.
    pub name: &'a str,
    /// The type's stored version.
    pub version: u32,
    /// The encoded event or state.
    pub payload: &'a [u8],
    /// The metadata of its unit.
    pub metadata: &'a [u8],
    /// Whether it is a durable state and not an event.
    pub is_state: bool,
}

/// What is stored of a command, borrowed from a read buffer.
#[derive(Debug, Clone, Copy)]
pub struct StoredCommand<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its fingerprint.
    pub fingerprint: [u8; 16],
    /// The entity's revision after it.
    pub revision: u64,
    /// When it was committed, nanoseconds since the Unix epoch.
    pub time: u64,
    /// Why it was refused, if it was.
    pub rejection: Option<StoredRejection<'a>>,
}

/// Why a stored command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredRejection<'a> {
    /// The rejection type's stored name.
    pub name: &'a str,
    /// The rejection type's stored version.
    pub version: u32,
    /// The encoded rejection.
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

/// Whether a read may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Neither for a disk nor over more than [`READ_AT_ONCE`] units: it fails with `WouldWait` instead.
    Never,
    /// As long as it takes.
    AsLongAsItTakes,
}

/// Units that a read looks at that is not to wait: some tenths of a millisecond.
pub const READ_AT_ONCE: usize = 2048;

/// Counters of one opened journal, read in one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Position of the last durable event or state, 0 in an empty store.
    pub position: u64,
    /// Entities with at least one durable event or state.
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
/// their revisions alone. So a unit that was refused takes those along that count on its revisions, and no others.
///
/// Safe to call from several threads. No call but [`close`](Journal::close) and the reads waits for a disk,
/// and those that are given it not with [`Wait::Never`].
pub trait Journal: Send + Sync {
    /// Accepts a unit for the next batch. The bytes are copied; the order of calls is the order in the store.
    ///
    /// # Errors
    /// `TooLarge`, `Poisoned`, `Forked`, `Closed`: the unit was not accepted and no trace of it exists.
    fn append(&self, unit: &Unit<'_>) -> Result<Ticket>;

    /// Accepts a note for the next batch: what the user of the store keeps in it under a name, of which the latest value
    /// counts. An empty value removes the note. It has no position, and the readers of entities, the stream and the counters
    /// of positions and entities do not know of it. Notes are told apart by their names alone: any thread may write any
    /// note, and one that is refused takes no later one along.
    ///
    /// # Errors
    /// As [`append`](Journal::append); `NoteTooLarge` where name or value are longer than [`MAX_NAME_BYTES`] and
    /// [`MAX_NOTE_BYTES`].
    fn write_note(&self, name: &str, value: &[u8]) -> Result<Ticket> {
        if name.len() > MAX_NAME_BYTES || value.len() > MAX_NOTE_BYTES {
            return Err(StoreError::note_too_large(name, value.len()));
        }
        let entity = EntityKey::new(Arc::from(NOTES), Arc::from(name));
        let content = Content::Note(value);
        self.append(&Unit { entity: &entity, first_revision: 1, content, command: None, metadata: &[] })
    }

    /// The durable value of a note, if there is one. May wait for a disk.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn read_note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        // Of the names that start with this one, it comes first.
        self.read_notes(name, &mut |first, value| {
            found = (first == name).then(|| value.to_vec());
            Read::Enough
        })?;
        Ok(found)
    }

    /// Visits the durable notes of which the names start with `prefix`, sorted by name. Each is shown with a value that was
    /// its latest during the call. May wait for a disk; no lock is held during a visit.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn read_notes(&self, prefix: &str, visit: &mut dyn FnMut(&str, &[u8]) -> Read) -> Result<()>;

    /// Whether so much was accepted and is not settled yet that whoever can had better wait with the next unit. Nothing is
    /// refused for it. What is settled is not counted any more when the waker is called.
    fn is_congested(&self) -> bool;

    /// Lets the committer start on what was accepted. Cheap; calling it more often makes smaller batches. Notes that were
    /// accepted and not kicked go with the next kick, or once a log has been idle for `idle_mark_millis`.
    fn kick(&self);

    /// The highest ticket up to which every unit has an outcome; `u64::MAX` once the journal is poisoned.
    fn settled(&self) -> Ticket;

    /// What became of a settled unit.
    fn outcome(&self, ticket: Ticket) -> Outcome;

    /// Registers what is called, from any thread and without arguments, after tickets have been settled.
    fn on_settled(&self, wake: Arc<dyn Fn() + Send + Sync>);

    /// What closed the journal to writing, if anything did: a failed write, or a fork.
    fn poisoned(&self) -> Option<StoreError>;

    /// The entity's last durable revision; 0 where it has none, or nothing but records of commands.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn revision(&self, entity: &EntityKey) -> Result<u64>;

    /// The kinds under which `id` has durable events or states, sorted.
    fn kinds_of(&self, id: &str) -> Vec<Arc<str>>;

    /// Visits the entity's durable events from `from` (at least 1) in order of revision; returns the last durable revision.
    /// States are passed over. No lock is held during a visit. After a failure a read goes on from the revision reached.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`, `WouldWait`.
    fn read_entity(
        &self,
        entity: &EntityKey,
        from: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
    ) -> Result<u64>;

    /// Visits the entity's latest durable state whose version is at most `at`, if there is one; returns the last durable
    /// revision. Older states are found as long as the store holds them; what is newer is passed one unit at a time. No lock
    /// is held during the visit.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`, `WouldWait`.
    fn read_state(
        &self,
        entity: &EntityKey,
        at: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<u64>;

    /// Visits what is durable of the entity's commands, the newest first, until one of its units is older than `since`
    /// (nanoseconds since the Unix epoch). No lock is held during a visit.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`, `WouldWait`.
    fn read_commands(
        &self,
        entity: &EntityKey,
        since: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredCommand<'_>) -> Read,
    ) -> Result<()>;

    /// Visits every durable event and state from position `from` (at least 1) in order of position.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn read_from(&self, from: u64, visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read) -> Result<()>;

    /// Follows what is durable and what becomes so, from the first position behind `after` (0 for everything; it may be beyond the
    /// end). After a follower came up empty, `wake` is called once there may be more, or once the journal is closed: once for all
    /// followers that were given the same `Arc`.
    ///
    /// # Errors
    /// `Forked`, `Closed`.
    fn follow(self: Arc<Self>, after: u64, filter: Filter, wake: Waker) -> Result<Box<dyn Follower>>;

    /// What tells this store from any other, for as long as it exists.
    fn store_id(&self) -> [u8; 16];

    /// The last position that was committed before `time` (nanoseconds since the Unix epoch); 0 where there is none. Waits for the disk.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`.
    fn position_at(&self, time: u64) -> Result<u64>;

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
