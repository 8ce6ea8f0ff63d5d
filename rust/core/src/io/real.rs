//! The real door: the operating system.

use super::{Door, File, Lock, LockOutcome, Mode, PathKind};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Files, clock and randomness of the machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDoor;

#[expect(clippy::disallowed_types, reason = "this is the one place where files are opened")]
type OsFile = std::fs::File;

#[derive(Debug)]
struct RealFile(OsFile);

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_at_now(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset + filled as u64;
            match preadv2(&self.0, &mut [IoSliceMut::new(rest)], at, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                // Not every file system can tell.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn datasync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// `flock` belongs to the open file description, which a fork shares: the child must close its copy, or the lock would
/// outlive the owner.
#[derive(Debug)]
struct RealLock {
    file: parking_lot::Mutex<Option<OsFile>>,
    owner: u32,
}

impl Lock for RealLock {
    fn release(&self) {
        // Said by the owner, and not only closed: a child between fork and exec has a copy of the descriptor.
        if let Some(file) = self.file.lock().take()
            && self.owner == std::process::id()
        {
            let _ = file.unlock();
        }
    }

    fn abandon(&self) {
        // A thread of the parent may have held the mutex at the fork; then the descriptor stays and the lock with it,
        // which is the safe side.
        if let Some(mut held) = self.file.try_lock()
            && let Some(file) = held.take()
        {
            drop(file);
        }
    }
}

impl Drop for RealLock {
    fn drop(&mut self) {
        self.release();
    }
}

#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "this is the real kind of the door")]
impl Door for RealDoor {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            Mode::Read => &mut options,
            Mode::Write => options.write(true),
            Mode::Create => options.write(true).create(true).truncate(false),
            Mode::Replace => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(PathKind::Directory),
            Ok(found) if found.is_file() => Ok(PathKind::File),
            Ok(_) => Ok(PathKind::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PathKind::Missing),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.push(entry?.path());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFile::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        let mut file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                let owner = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Ok(LockOutcome::Taken(owner));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        // For whoever is refused. It is written over what is there, so that a full disk does not keep a store shut.
        let pid = format!("{}\n", self.pid());
        let _ = file.write_all_at(pid.as_bytes(), 0).and_then(|()| file.set_len(pid.len() as u64));
        let lock = RealLock { file: parking_lot::Mutex::new(Some(file)), owner: self.pid() };
        Ok(LockOutcome::Held(Box::new(lock)))
    }

    fn wall_nanos(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall_nanos_at_tick(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        u64::try_from(nanos).unwrap_or(0)
    }

    fn random(&self, buf: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // getrandom without flags fails on interruption alone once the machine has booted.
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
        }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}
