//! The embedded store: one append-only log for everything, one committer, one sync for everybody who waits.
//!
//! A directory with a lock, a manifest, numbered segments and derived files. The bytes are described in
//! `docs/log-format.md`. An answer given by [`Journal::outcome`] as stored has been covered by a completed `fdatasync`.

mod ahead;
mod backwards;
mod batch;
mod chain;
mod checkpoint;
mod committer;
mod crc;
mod follow;
pub mod format;
mod heads;
mod housekeeper;
mod manifest;
mod notes;
mod options;
mod pages;
mod queue;
mod reader;
mod recovery;
mod ring;
mod scan;
mod segment;
mod settlement;
mod sidecar;
mod space;
mod walk;
mod whole_file;
mod window;

pub use options::LogOptions;

use crate::entities::shard::shard_of;
use crate::error::{Result, StoreError};
use crate::feed::{Bell, Filter, Follower, Pool, Waker};
use crate::io::{Door, Lock, LockOutcome, Mode, PathKind};
use crate::journal::{
    EntityKey, Journal, JournalStats, MAX_METADATA_BYTES, MAX_NAME_BYTES, Outcome, Read, StoredCommand, StoredEvent,
    Ticket, Unit, Wait,
};
use ahead::Ahead;
use chain::Chain;
use checkpoint::Reach;
use committer::Committer;
use follow::LogFollower;
use heads::Heads;
use manifest::Manifest;
use parking_lot::{Mutex, RwLock};
use queue::Queue;
use ring::Ring;
use settlement::Settlement;
use space::{Job, Space};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What was found when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Whether the store was made by this opening.
    pub created: bool,
    /// Entities with at least one event or state.
    pub entities: u64,
    /// Position of the last event or state.
    pub position: u64,
    /// A torn tail that was dropped.
    pub torn: Option<Torn>,
    /// Whether the last batch was undecided and has been copied into a new segment.
    pub undecided_copied: bool,
    /// Bytes of batches read.
    pub scanned_bytes: u64,
    /// How long it took.
    pub elapsed_nanos: u64,
}

/// Bytes behind the last valid batch that no completed sync covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub path: PathBuf,
    /// Where they start.
    pub offset: u64,
    /// How many there are, up to the last that is not zero.
    pub bytes: u64,
}

#[derive(Debug)]
struct Shared {
    door: Arc<dyn Door>,
    path: PathBuf,
    options: LogOptions,
    store: [u8; 16],
    shards: u16,
    queue: Queue,
    settlement: Settlement,
    space: Space,
    heads: Mutex<Heads>,
    chain: RwLock<Chain>,
    /// How far the log is durable.
    reach: Mutex<Reach>,
    /// A buffer for the next reader.
    spare: Mutex<Vec<u8>>,
    batches: AtomicU64,
    bytes: AtomicU64,
    ring: Ring,
    ahead: Ahead,
    bell: Bell,
    /// Buffers for batches of the ring and stretches of files.
    pool: Arc<Pool>,
    opened_by: u32,
    forked: AtomicBool,
    closed: AtomicBool,
}

impl Shared {
    fn reach(&self) -> Reach {
        self.reach.lock().clone()
    }

    fn check_process(&self) -> Result<()> {
        if self.forked.load(Ordering::Relaxed) {
            return Err(StoreError::Forked { path: self.path.clone(), pid: self.opened_by });
        }
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        self.check_process()?;
        if self.closed.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Settles every ticket up to this one, whose units take `len` bytes; those not refused are durable.
    fn settle(&self, upto: Ticket, len: usize) {
        // First: who is woken by the settlement may ask whether there is room again.
        self.queue.settled(len as u64);
        self.settlement.settle(upto);
        // Last: an answer waits for no follower.
        self.bell.ring();
    }

    /// Accepts and acknowledges nothing more.
    fn poison(&self, cause: &str) {
        let cause: Arc<str> = Arc::from(cause);
        self.queue.refuse(StoreError::Poisoned { cause: Arc::clone(&cause) }, false);
        self.queue.settled(u64::MAX);
        self.settlement.poison(cause);
    }
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    opened: Opened,
    lock: Box<dyn Lock>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    committer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
}

fn random_u64(door: &dyn Door) -> u64 {
    let mut bytes = [0; 8];
    door.random(&mut bytes);
    u64::from_le_bytes(bytes)
}

impl Log {
    /// Opens the store in the directory `path`; makes it where there is nothing. The parent directory exists.
    ///
    /// # Errors
    /// `Format` (not a store, or an impossible option), `Locked`, `Corrupt`, `Full`, `Io`. Nothing that was acknowledged is ever
    /// removed to make an opening succeed.
    pub fn open(door: Arc<dyn Door>, path: &Path, options: LogOptions) -> Result<Self> {
        options.check()?;
        let started = door.wall_nanos();
        enter_directory(&*door, path)?;
        let lock_path = path.join("LOCK");
        let lock = match door.lock(&lock_path).map_err(|e| StoreError::io(&lock_path, "locking the store", e))? {
            LockOutcome::Held(lock) => lock,
            LockOutcome::Taken(pid) => return Err(StoreError::Locked { path: path.to_path_buf(), pid }),
        };
        let ids = segment_ids(&*door, path)?;
        let manifest = Manifest::read(&*door, path)?;
        if manifest.is_none() {
            // The directory itself may be new. There is no manifest before its name is durable.
            let parent = parent(path);
            door.sync_dir(parent).map_err(|e| StoreError::io(parent, "syncing the directory", e))?;
        }
        let created = manifest.is_none() && ids.is_empty();
        remove_leftovers(&*door, path)?;
        let recovered = if created {
            recovery::create(&*door, path, &options)?
        } else {
            recovery::recover(&*door, path, &options, manifest.as_ref(), &ids)?
        };
        let current = recovered.chain.manifest(recovered.store, recovered.shards);
        if manifest.as_ref() != Some(&current) {
            current.write(&*door, path)?;
        }
        // Names given by an earlier opening whose sync of the directory failed are made durable before anything is served.
        door.sync_dir(path).map_err(|e| StoreError::io(path, "syncing the directory", e))?;
        let opened = Opened {
            created,
            entities: recovered.heads.stored(),
            position: recovered.reach.position,
            torn: recovered.torn.clone(),
            undecided_copied: recovered.undecided_copied,
            scanned_bytes: recovered.scanned_bytes,
            elapsed_nanos: door.wall_nanos().saturating_sub(started),
        };
        Self::start(door, path, options, lock, recovered, opened)
    }

    fn start(
        door: Arc<dyn Door>,
        path: &Path,
        options: LogOptions,
        lock: Box<dyn Lock>,
        recovered: recovery::Recovered,
        opened: Opened,
    ) -> Result<Self> {
        let active = recovered.active;
        let (file, _) = segment::open(&*door, path, active.id, Mode::Write)?;
        let used = recovered.reach.point.offset;
        let space = Space::new(&*door, path, active.id, recovered.filled, used, options.segment_bytes)?;
        for id in 1..active.id {
            // What a crash or a full disk kept from being built is built now.
            let indexed = door.kind(&sidecar::path(path, id)).is_ok_and(|kind| kind == PathKind::File);
            if recovered.sealed == Some(id) || !indexed {
                space.ask(Job::Sealed(id));
            }
        }
        if recovered.sealed.is_some() {
            space.ask(Job::Checkpoint);
        }
        let opened_by = door.pid();
        let shared = Arc::new(Shared {
            door,
            path: path.to_path_buf(),
            options,
            store: recovered.store,
            shards: recovered.shards,
            queue: Queue::new(),
            settlement: Settlement::default(),
            space,
            heads: Mutex::new(recovered.heads),
            chain: RwLock::new(recovered.chain),
            reach: Mutex::new(recovered.reach),
            spare: Mutex::new(Vec::new()),
            batches: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ring: Ring::new(options.feed_ring_bytes as usize, options.feed_ring_batches as usize),
            ahead: Ahead::default(),
            bell: Bell::default(),
            pool: Arc::default(),
            opened_by,
            forked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let committer = Committer::new(Arc::clone(&shared), file, active, recovered.unproven);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|e| StoreError::io(path, "starting a thread", e))
        };
        let keeper = Arc::clone(&shared);
        let housekeeper = spawn(
            "ego-housekeeper",
            Box::new(move || {
                if catch_unwind(AssertUnwindSafe(|| housekeeper::run(&keeper))).is_err() {
                    let ended = std::io::Error::other("the housekeeper ended unexpectedly; this is a bug");
                    keeper.space.fail(&StoreError::io(&keeper.path, "keeping house", ended));
                }
            }),
        )?;
        let committing = Arc::clone(&shared);
        let work = move || {
            if catch_unwind(AssertUnwindSafe(|| committer.run())).is_err() {
                committing.poison("the committer ended unexpectedly; this is a bug");
            }
        };
        let committer = match spawn("ego-committer", Box::new(work)) {
            Ok(committer) => committer,
            Err(error) => {
                shared.space.ask(Job::Stop);
                let _ = housekeeper.join();
                return Err(error);
            }
        };
        let threads = Mutex::new(Some(Threads { committer, housekeeper }));
        Ok(Self { shared, opened, lock, threads })
    }

    /// What was found when the log was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Shards of the store.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shared.shards
    }
}

/// Checks that `path` is, or can become, a store; makes its directory where there is nothing.
fn enter_directory(door: &dyn Door, path: &Path) -> Result<()> {
    let io = |e| StoreError::io(path, "opening the store", e);
    let format = |detail: &str| StoreError::Format { path: path.to_path_buf(), detail: detail.to_owned() };
    match door.kind(path).map_err(io)? {
        PathKind::Directory => {}
        PathKind::Missing => {
            if door.kind(parent(path)).map_err(io)? != PathKind::Directory {
                return Err(format("the parent directory does not exist; create it first"));
            }
            return door.create_dir(path).map_err(|e| StoreError::io(path, "creating the store's directory", e));
        }
        PathKind::File | PathKind::Other => {
            return Err(format("a store is a directory, and this is a file; choose another path"));
        }
    }
    let names = door.list(path).map_err(io)?;
    let ours = |name: &PathBuf| {
        let fixed = ["MANIFEST", "MANIFEST.next"].iter().any(|known| name.ends_with(known));
        fixed || segment::segment_id(name).is_some() || segment::is_prepared(name)
    };
    // A lock alone is what a crash leaves of a store that was being made.
    let only_lock = names.len() == 1 && names.iter().all(|name| name.ends_with("LOCK"));
    if !names.is_empty() && !only_lock && !names.iter().any(ours) {
        return Err(format("the directory holds other files and no ego log; choose an empty or a new directory"));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn segment_ids(door: &dyn Door, path: &Path) -> Result<Vec<u32>> {
    let names = door.list(path).map_err(|e| StoreError::io(path, "opening the store", e))?;
    Ok(names.iter().filter_map(|name| segment::segment_id(name)).collect())
}

fn remove_leftovers(door: &dyn Door, path: &Path) -> Result<()> {
    let names = door.list(path).map_err(|e| StoreError::io(path, "opening the store", e))?;
    for name in names.iter().filter(|name| segment::is_leftover(name)) {
        door.unlink(name).map_err(|e| StoreError::io(name, "removing a leftover", e))?;
    }
    Ok(())
}

impl Journal for Log {
    fn append(&self, unit: &Unit<'_>) -> Result<Ticket> {
        self.shared.check_open()?;
        let (len, longest_name) = format::measure(unit);
        let cap = self.shared.options.max_unit_bytes as usize;
        if unit.metadata.len() > MAX_METADATA_BYTES {
            return Err(StoreError::too_large(unit.entity, unit.metadata.len(), MAX_METADATA_BYTES));
        }
        if len > cap || longest_name > MAX_NAME_BYTES {
            return Err(StoreError::too_large(unit.entity, len, cap));
        }
        self.shared.queue.push(unit, len, shard_of(unit.entity.hash(), self.shared.shards))
    }

    fn is_congested(&self) -> bool {
        self.shared.queue.unsettled() > self.shared.options.max_queue_bytes
    }

    fn kick(&self) {
        // In a forked child a thread of the parent may hold the queue for ever.
        if self.shared.check_process().is_ok() {
            self.shared.queue.kick();
        }
    }

    fn settled(&self) -> Ticket {
        self.shared.settlement.settled()
    }

    fn outcome(&self, ticket: Ticket) -> Outcome {
        self.shared.settlement.outcome(ticket)
    }

    fn on_settled(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.shared.settlement.on_settled(wake);
    }

    fn poisoned(&self) -> Option<StoreError> {
        self.shared.check_process().err().or_else(|| self.shared.settlement.poisoned())
    }

    fn revision(&self, entity: &EntityKey) -> Result<u64> {
        self.shared.check_open()?;
        Ok(self.shared.heads.lock().get(&entity.kind, &entity.id, entity.hash()).map_or(0, |head| head.revision))
    }

    fn kinds_of(&self, id: &str) -> Vec<Arc<str>> {
        if self.shared.check_open().is_err() {
            return Vec::new();
        }
        self.shared.heads.lock().kinds_of(id)
    }

    fn read_entity(
        &self,
        entity: &EntityKey,
        from: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
    ) -> Result<u64> {
        self.shared.check_open()?;
        reader::read_entity(&self.shared, entity, from, wait, visit)
    }

    fn read_state(
        &self,
        entity: &EntityKey,
        at: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<u64> {
        self.shared.check_open()?;
        backwards::read_state(&self.shared, entity, at, wait, visit)
    }

    fn read_commands(
        &self,
        entity: &EntityKey,
        since: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredCommand<'_>) -> Read,
    ) -> Result<()> {
        self.shared.check_open()?;
        backwards::read_commands(&self.shared, entity, since, wait, visit)
    }

    fn read_from(&self, from: u64, visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read) -> Result<()> {
        self.shared.check_open()?;
        reader::read_from(&self.shared, from, visit)
    }

    fn follow(self: Arc<Self>, after: u64, filter: Filter, wake: Waker) -> Result<Box<dyn Follower>> {
        self.shared.check_open()?;
        Ok(Box::new(LogFollower::new(&self.shared, after, filter, wake)))
    }

    fn store_id(&self) -> [u8; 16] {
        self.shared.store
    }

    fn position_at(&self, time: u64) -> Result<u64> {
        self.shared.check_open()?;
        walk::position_at(&self.shared, time)
    }

    fn read_notes(&self, prefix: &str, visit: &mut dyn FnMut(&str, &[u8]) -> Read) -> Result<()> {
        self.shared.check_open()?;
        notes::read_notes(&self.shared, prefix, visit)
    }

    fn stats(&self) -> JournalStats {
        if self.shared.check_open().is_err() {
            return JournalStats::default();
        }
        let units = self.shared.queue.accepted();
        let (entities, position) = {
            let heads = self.shared.heads.lock();
            (heads.stored(), self.shared.reach.lock().position)
        };
        JournalStats {
            position,
            entities,
            units,
            batches: self.shared.batches.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            pending: units.saturating_sub(self.settled()),
        }
    }

    fn abandon_after_fork(&self) {
        self.shared.forked.store(true, Ordering::Relaxed);
        self.lock.abandon();
    }

    fn close(&self) -> Result<()> {
        self.shared.check_process()?;
        // Held to the end: whoever closes at the same time returns when it is closed.
        let mut threads = self.threads.lock();
        let Some(threads) = threads.take() else { return self.poisoned().map_or(Ok(()), Err) };
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.queue.refuse(StoreError::Closed, true);
        let committed = threads.committer.join();
        self.shared.ahead.close();
        self.shared.bell.ring_out();
        self.shared.space.ask(Job::Stop);
        let kept = threads.housekeeper.join();
        let poisoned = self.poisoned();
        if poisoned.is_none() && committed.is_ok() && kept.is_ok() {
            // Derived: without it the next opening reads the log instead.
            let _ = housekeeper::write_checkpoint(&self.shared);
        }
        self.lock.release();
        poisoned.map_or(Ok(()), Err)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
