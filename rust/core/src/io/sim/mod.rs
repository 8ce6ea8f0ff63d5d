//! The simulated kind of the door: a file system in memory that keeps page cache and disk apart.
//!
//! What it promises: the same calls with the same seed leave the same bytes; a call fails as it is told to; a crash
//! takes away what no completed sync covers, in every way that a real disk may. What it does not do: order the threads
//! of a program. Counts are kept per [`Site`] for that reason.
//!
//! A run is made on one [`SimDoor`]. [`SimDoor::fail`] and [`SimDoor::crash_before`] arm what is to go wrong;
//! afterwards [`SimDoor::after_crash`] gives the door of a machine that starts again, as often and in as many ways as
//! wanted, and [`SimDoor::after_kill`] that of a process that starts again on a machine that went on. Two directories
//! exist from the start: `/` and `/data`.

mod content;
mod crash;
mod disk;
mod faults;
mod gate;

#[cfg(test)]
mod tests;

pub use crash::{Bytes, Crash, Names};
pub use disk::AfterFailedSync;
pub use faults::{Call, Fault, Selector, Site, Times, Traced, file_class};
pub use gate::Held;

use super::{Door, File, Lock, LockOutcome, Mode, PathKind};
use crash::Dice;
use disk::{Data, Disk, Entry, Ino, NameChange};
use faults::{Action, Faults, Verdict};
use gate::Gates;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The first reading of a new machine's clock.
pub const CLOCK_START: u64 = 1_700_000_000_000_000_000;
/// How far the clock moves at each reading.
pub const CLOCK_STEP: u64 = 1_000_000;

#[derive(Debug)]
struct State {
    disk: Disk,
    faults: Faults,
    locks: BTreeSet<PathBuf>,
    crashed: bool,
    dice: Dice,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    gates: Gates,
    clock: AtomicU64,
    pid: u32,
    /// Whether reads that may not wait are refused.
    is_cold: AtomicBool,
    seed: u64,
}

/// A simulated machine. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct SimDoor {
    shared: Arc<Shared>,
}

impl SimDoor {
    /// An empty machine.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(Disk::new(), seed, CLOCK_START, 1000)
    }

    fn with(disk: Disk, seed: u64, clock: u64, pid: u32) -> Self {
        let dice = Dice::new(seed);
        let state = State { disk, faults: Faults::default(), locks: BTreeSet::new(), crashed: false, dice };
        let clock = AtomicU64::new(clock);
        let (state, is_cold) = (Mutex::new(state), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { state, gates: Gates::default(), clock, pid, is_cold, seed }) }
    }

    /// Fails the `nth` call (from 1, counted from now) that the selector chooses. The answer is for
    /// [`SimDoor::disarm`].
    pub fn fail(&self, selector: Selector, nth: u64, fault: Fault, times: Times) -> u64 {
        self.shared.state.lock().faults.arm(selector, nth, Action::Fail(fault, times))
    }

    /// Crashes before the `nth` call (from 1, counted from now) that the selector chooses: it and all later calls fail.
    pub fn crash_before(&self, selector: Selector, nth: u64) -> u64 {
        self.shared.state.lock().faults.arm(selector, nth, Action::Crash)
    }

    /// Takes one armed fault or crash back.
    pub fn disarm(&self, armed: u64) {
        self.shared.state.lock().faults.disarm(armed);
    }

    /// Crashes now.
    pub fn crash(&self) {
        self.shared.state.lock().crashed = true;
        self.shared.gates.open_all();
    }

    /// Whether the machine has crashed.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.shared.state.lock().crashed
    }

    /// Disarms everything; what has happened stays.
    pub fn heal(&self) {
        self.shared.state.lock().faults.heal();
    }

    /// How many calls have been failed or crashed so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.state.lock().faults.struck
    }

    /// Stops the calls that the selector chooses before they do anything, until the answer is dropped.
    #[must_use]
    pub fn hold(&self, selector: Selector) -> Held {
        Held::new(self.shared.clone(), selector)
    }

    /// Calls made so far, by site.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Site, u64> {
        self.shared.state.lock().faults.counts.clone()
    }

    /// Starts to keep every call from now on.
    pub fn start_trace(&self) {
        self.shared.state.lock().faults.trace = Some(Vec::new());
    }

    /// The calls since [`SimDoor::start_trace`], in the order in which they took effect.
    #[must_use]
    pub fn trace(&self) -> Vec<Traced> {
        self.shared.state.lock().faults.trace.clone().unwrap_or_default()
    }

    /// Blocks that files take, as far as names lead to them.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.shared.state.lock().disk.used()
    }

    /// Gives the disk that many blocks of 4 KiB; `None` takes the bound away. Writes into blocks that a file already
    /// has go on.
    pub fn set_capacity(&self, blocks: Option<u64>) {
        self.shared.state.lock().disk.capacity = blocks;
    }

    /// What the cache holds after a sync that failed.
    pub fn set_after_failed_sync(&self, model: AfterFailedSync) {
        self.shared.state.lock().disk.after_failed_sync = model;
    }

    /// Sets the clock, back as well.
    pub fn set_wall_nanos(&self, nanos: u64) {
        self.shared.clock.store(nanos, Ordering::Relaxed);
    }

    /// Lets every read that may not wait find nothing in memory, until it is told otherwise.
    pub fn set_cold(&self, is_cold: bool) {
        self.shared.is_cold.store(is_cold, Ordering::Relaxed);
    }

    /// Changes of bytes and of names that no completed sync covers.
    #[must_use]
    pub fn unsynced(&self) -> (usize, usize) {
        let state = self.shared.state.lock();
        (state.disk.data.len(), state.disk.name_changes.len())
    }

    /// The door of the machine that starts after a crash at this moment: its cache is its disk, and nothing is locked.
    #[must_use]
    pub fn after_crash(&self, crash: Crash, seed: u64) -> Self {
        let disk = self.shared.state.lock().disk.after_crash(crash, seed);
        self.successor(disk)
    }

    /// The door of a process that starts after the death of this one: the cache is as it was, what is armed stays armed
    /// and counts go on, and nothing is locked.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.shared.state.lock();
        let next = self.successor(state.disk.clone());
        next.shared.state.lock().faults = state.faults.clone();
        next
    }

    fn successor(&self, disk: Disk) -> Self {
        let clock = self.shared.clock.load(Ordering::Relaxed);
        let pid = self.shared.pid.wrapping_add(1);
        Self::with(disk, self.shared.seed.wrapping_add(1), clock, pid)
    }

    /// A hash of every name and byte that the disk holds for certain.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let state = self.shared.state.lock();
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for (path, entry) in &state.disk.durable_names {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(&[0]);
            if let Entry::File(ino) = entry
                && let Some(node) = state.disk.nodes.get(ino)
            {
                node.disk.hash_into(&mut hash);
            }
        }
        hash.digest128()
    }

    /// Whether the disk itself holds the path, whatever the cache says.
    #[must_use]
    pub fn is_durable(&self, path: &Path) -> bool {
        self.shared.state.lock().disk.durable_names.contains_key(path)
    }

    /// Changes one byte of a file on the disk and in the cache, as rot does.
    ///
    /// # Errors
    /// There is no such file.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let state = &mut *self.shared.state.lock();
        let ino = state.disk.file(path)?;
        let Some(node) = state.disk.nodes.get_mut(&ino) else { return Err(io::ErrorKind::NotFound.into()) };
        for content in [&mut node.cache, &mut node.disk] {
            let mut byte = [0];
            content.read(&mut byte, offset);
            content.write(&byte.map(|b| b ^ mask), offset);
        }
        Ok(())
    }

    /// Makes a call: counts it, lets it wait, fail or crash as armed, and else does `work`. `failed` does what the
    /// fault leaves.
    fn call<T>(
        &self,
        path: &Path,
        (call, range): (Call, Option<(u64, u64)>),
        work: impl FnOnce(&mut State) -> io::Result<T>,
        mut failed: impl FnMut(&mut State, Fault),
    ) -> io::Result<T> {
        let site = Site::here(path, call);
        self.shared.gates.pass(&site);
        let state = &mut *self.shared.state.lock();
        if state.crashed {
            return Err(after_crash());
        }
        match state.faults.decide(site, path, range) {
            Verdict::Go => work(state),
            Verdict::Fail(fault) => {
                failed(state, fault);
                let resumed = fault == Fault::Interrupted && matches!(call, Call::Read | Call::Write);
                if resumed { work(state) } else { Err(fault.error()) }
            }
            Verdict::Crash => {
                state.crashed = true;
                self.shared.gates.open_all();
                Err(after_crash())
            }
        }
    }

    /// A call that changes names: [`Fault::Short`] reports an error for what took place.
    fn change_names<T>(&self, path: &Path, call: Call, work: impl Fn(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        self.call(
            path,
            (call, None),
            |state| work(&mut state.disk),
            |state, fault| {
                if fault == Fault::Short {
                    let _outcome = work(&mut state.disk);
                }
            },
        )
    }

    fn look<T>(&self, path: &Path, call: Call, work: impl FnOnce(&Disk) -> io::Result<T>) -> io::Result<T> {
        self.call(path, (call, None), |state| work(&state.disk), |_, _| ())
    }
}

fn after_crash() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

impl Door for SimDoor {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let (ino, failures) = self.change_names(path, Call::Open, |disk| {
            let ino = match (disk.file(path), mode) {
                (Err(e), Mode::Create | Mode::Replace) if e.kind() == io::ErrorKind::NotFound => disk.create(path)?,
                (found, _) => found?,
            };
            if mode == Mode::Replace {
                disk.change(ino, Data::Len(0));
            }
            Ok((ino, disk.failures(ino)))
        })?;
        let (path, told) = (path.to_owned(), AtomicU64::new(failures));
        Ok(Arc::new(SimFile { door: self.clone(), path, ino, writable: mode != Mode::Read, told }))
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        self.look(path, Call::Kind, |disk| {
            Ok(match disk.entry(path) {
                None => PathKind::Missing,
                Some(Entry::File(_)) => PathKind::File,
                Some(Entry::Directory) => PathKind::Directory,
            })
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change_names(path, Call::CreateDir, |disk| {
            disk.need_parent(path)?;
            if disk.entry(path).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.change_name(NameChange::Made(path.to_owned(), Entry::Directory));
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.look(path, Call::List, |disk| {
            if disk.entry(path) != Some(Entry::Directory) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(disk.names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change_names(to, Call::Rename, |disk| {
            let ino = disk.file(from)?;
            disk.need_parent(to)?;
            disk.change_name(NameChange::Renamed(from.to_owned(), to.to_owned(), Entry::File(ino)));
            Ok(())
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change_names(path, Call::Unlink, |disk| {
            let ino = disk.file(path)?;
            disk.change_name(NameChange::Removed(path.to_owned(), Entry::File(ino)));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let sync = |state: &mut State| {
            if state.disk.entry(path) != Some(Entry::Directory) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.disk.sync_dir(path);
            Ok(())
        };
        self.call(path, (Call::SyncDir, None), sync, |_, _| ())
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        let pid = self.pid();
        let take = |state: &mut State| {
            let ino = match state.disk.file(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => state.disk.create(path)?,
                found => found?,
            };
            if !state.locks.insert(path.to_owned()) {
                let mut text = [0; 16];
                let read = state.disk.nodes.get(&ino).map_or(0, |node| node.cache.read(&mut text, 0));
                let text = std::str::from_utf8(text.split_at(read).0).unwrap_or_default();
                return Ok(LockOutcome::Taken(text.trim().parse().ok()));
            }
            state.disk.change(ino, Data::Len(0));
            state.disk.write(ino, format!("{pid}\n").as_bytes(), 0).inspect_err(|_| {
                state.locks.remove(path);
            })?;
            let (door, path) = (self.clone(), path.to_owned());
            Ok(LockOutcome::Held(Box::new(SimLock { door, path, gone: AtomicBool::new(false) })))
        };
        self.call(path, (Call::Lock, None), take, |_, _| ())
    }

    fn wall_nanos(&self) -> u64 {
        self.shared.clock.fetch_add(CLOCK_STEP, Ordering::Relaxed)
    }

    fn random(&self, buf: &mut [u8]) {
        let state = &mut *self.shared.state.lock();
        for byte in buf {
            *byte = state.dice.next().to_le_bytes()[0];
        }
    }

    fn pid(&self) -> u32 {
        self.shared.pid
    }
}

#[derive(Debug)]
struct SimFile {
    door: SimDoor,
    path: PathBuf,
    ino: Ino,
    writable: bool,
    /// Failed syncs of the file of which this descriptor knows.
    told: AtomicU64,
}

impl SimFile {
    fn change(
        &self,
        what: (Call, Option<(u64, u64)>),
        work: impl FnOnce(&mut Disk) -> io::Result<()>,
        failed: impl FnMut(&mut State, Fault),
    ) -> io::Result<()> {
        let guarded = |state: &mut State| {
            if self.writable { work(&mut state.disk) } else { Err(rustix::io::Errno::BADF.into()) }
        };
        self.door.call(&self.path, what, guarded, failed)
    }

    fn flush(&self, call: Call) -> io::Result<()> {
        let news = |disk: &Disk| {
            let failures = disk.failures(self.ino);
            self.told.swap(failures, Ordering::Relaxed) != failures
        };
        let sync = |state: &mut State| {
            state.disk.sync(self.ino);
            if news(&state.disk) { Err(Fault::Eio.error()) } else { Ok(()) }
        };
        self.door.call(&self.path, (call, None), sync, |state, fault| {
            if fault != Fault::Interrupted {
                state.disk.sync_failed(self.ino, fault == Fault::Short);
                news(&state.disk);
            }
        })
    }
}

impl File for SimFile {
    fn read_at_now(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.door.shared.is_cold.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read_at(buf, offset)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = (offset, buf.len() as u64);
        let fill = |state: &mut State, buf: &mut [u8]| match state.disk.nodes.get(&self.ino) {
            Some(node) if node.cache.read(buf, offset) == buf.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let buf = std::cell::RefCell::new(buf);
        self.door.call(
            &self.path,
            (Call::Read, Some(range)),
            |state| fill(state, &mut buf.borrow_mut()),
            |state, fault| {
                if fault == Fault::Short {
                    let buf = &mut *buf.borrow_mut();
                    let half = buf.len() / 2;
                    let _outcome = fill(state, buf.split_at_mut(half).0);
                }
            },
        )
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let what = (Call::Write, Some((offset, buf.len() as u64)));
        self.change(
            what,
            |disk| disk.write(self.ino, buf, offset),
            |state, fault| {
                if matches!(fault, Fault::Short | Fault::Interrupted) && self.writable {
                    let _outcome = state.disk.write(self.ino, buf.split_at(buf.len() / 2).0, offset);
                }
            },
        )
    }

    fn datasync(&self) -> io::Result<()> {
        self.flush(Call::Datasync)
    }

    fn sync(&self) -> io::Result<()> {
        self.flush(Call::Sync)
    }

    fn size(&self) -> io::Result<u64> {
        self.door.look(&self.path, Call::Size, |disk| {
            disk.nodes.get(&self.ino).map(|node| node.cache.len()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let cut = |disk: &mut Disk| {
            disk.change(self.ino, Data::Len(len));
            Ok(())
        };
        self.change((Call::SetLen, Some((len, 0))), cut, |_, _| ())
    }
}

#[derive(Debug)]
struct SimLock {
    door: SimDoor,
    path: PathBuf,
    /// Released or abandoned.
    gone: AtomicBool,
}

impl Lock for SimLock {
    fn release(&self) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            self.door.shared.state.lock().locks.remove(&self.path);
        }
    }

    fn abandon(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.release();
    }
}
