//! The only door to files, the clock and randomness.
//!
//! The real kind ([`RealDoor`]) calls the operating system; the simulated kind keeps page cache and disk apart, fails any call and
//! crashes between any two. Nothing else in the workspace may touch `std::fs`, a wall clock or a random source.
//!
//! Calls are whole: `read_at` and `write_at` either move every byte or say why not, and retry what the operating
//! system interrupts. A failed `datasync` is never retried by anybody.

mod clock;
mod real;
pub mod sim;

pub use clock::{Clock, Slice};
pub use real::RealDoor;
pub use sim::SimDoor;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file. Offsets are absolute; there is no cursor.
pub trait File: Debug + Send + Sync {
    /// Fills `buf` from `offset`; `UnexpectedEof` where the file ends before.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The same from memory alone; `WouldBlock` where the disk would have to be waited for, or where that cannot be told.
    fn read_at_now(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`. After an error any part of it may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written before the call durable (`fdatasync`).
    fn datasync(&self) -> io::Result<()>;
    /// Makes content and metadata durable (`fsync`).
    fn sync(&self) -> io::Result<()>;
    /// Bytes in the file.
    fn size(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it by a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading alone; the file exists.
    Read,
    /// Reading and writing; the file exists.
    Write,
    /// Reading and writing; made where it is missing, kept where it is not.
    Create,
    /// Reading and writing; made where it is missing, emptied where it is not.
    Replace,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing.
    Missing,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// A lock held on a file; let go when released or dropped.
pub trait Lock: Debug + Send + Sync {
    /// Lets go of it. Idempotent.
    fn release(&self);
    /// Closes the descriptor without a word to the holder's process, for a forked child.
    fn abandon(&self);
}

/// Whether a lock was had.
#[derive(Debug)]
pub enum LockOutcome {
    /// It is held from now on.
    Held(Box<dyn Lock>),
    /// Another process, or another opening in this one, has it; its process id where it could be read.
    Taken(Option<u32>),
}

/// Files, clock and randomness.
pub trait Door: Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>>;
    /// What stands at `path`.
    fn kind(&self, path: &Path) -> io::Result<PathKind>;
    /// Makes one directory; its parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The paths of what is in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Puts `from` in the place of `to`, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock file at `path` for this process and writes its process id into it.
    fn lock(&self, path: &Path) -> io::Result<LockOutcome>;
    /// Wall clock, nanoseconds since the Unix epoch.
    fn wall_nanos(&self) -> u64;
    /// The same clock as it stood at the last tick of the machine, some milliseconds ago at most; five times cheaper.
    fn wall_nanos_at_tick(&self) -> u64 {
        self.wall_nanos()
    }
    /// Fills `buf` with unpredictable bytes.
    fn random(&self, buf: &mut [u8]);
    /// This process's id.
    fn pid(&self) -> u32;
}
