//! Stretches of segments held in memory while one entity is read: looked at backwards to find its units, then forwards to
//! show them, without reading twice what is small enough to keep.

use super::Shared;
use super::chain::{self, Chain};
use super::format::{Address, DATA_START, Malformed};
use super::segment;
use crate::error::{Result, StoreError};
use crate::io::File;
use crate::journal::{READ_AT_ONCE, Wait};
use parking_lot::RwLockReadGuard;
use std::ops::Range;
use std::sync::Arc;

/// Bytes kept for the way forwards; what is beyond is read again.
const KEPT_BYTES: usize = 8 << 20;
/// Bytes of a buffer that is kept for the next reader, and what a reader that is not to wait reads at most.
const SPARE_BYTES: usize = 2 << 20;

/// From which end of the stretch the next unit is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Backward,
    Forward,
}

/// A stretch of a segment, and where it lies in the buffer.
struct Window {
    segment: u32,
    start: u64,
    held: Range<usize>,
}

/// The segment that was read last.
struct Source {
    segment: u32,
    file: Arc<dyn File>,
    /// Where what may be seen of it ends.
    end: u64,
}

/// The stretches held for one reader.
pub(super) struct Windows<'a> {
    pub(super) shared: &'a Shared,
    pub(super) wait: Wait,
    /// Units that were looked at.
    passed: usize,
    source: Option<Source>,
    kept: Vec<Window>,
    /// Memory that has been used before, so that its pages are there; what is read lies before `used`.
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> Windows<'a> {
    pub(super) fn new(shared: &'a Shared, wait: Wait) -> Self {
        let buffer = std::mem::take(&mut *shared.spare.lock());
        Self { shared, wait, passed: 0, source: None, kept: Vec::new(), buffer, used: 0 }
    }

    pub(super) fn corrupt(&self, address: Address, malformed: Malformed) -> StoreError {
        StoreError::Corrupt {
            path: segment::segment_path(&self.shared.path, address.segment),
            offset: u64::from(address.offset),
            detail: malformed.0.to_owned(),
        }
    }

    /// Counts one more unit that is looked at.
    ///
    /// # Errors
    /// `WouldWait`: they are more than the reader has the time for.
    pub(super) fn pass(&mut self) -> Result<()> {
        self.passed += 1;
        self.stop_if(self.passed > READ_AT_ONCE)
    }

    fn stop_if(&self, takes_long: bool) -> Result<()> {
        if takes_long && self.wait == Wait::Never { Err(StoreError::WouldWait) } else { Ok(()) }
    }

    /// The segments of the store.
    ///
    /// # Errors
    /// `WouldWait`: somebody is about to change them.
    pub(super) fn chain(&self) -> Result<RwLockReadGuard<'a, Chain>> {
        match self.wait {
            Wait::Never => self.shared.chain.try_read().ok_or(StoreError::WouldWait),
            Wait::AsLongAsItTakes => Ok(self.shared.chain.read()),
        }
    }

    /// The bytes from `address` to the end of a stretch; none where the stretch does not hold it.
    pub(super) fn from(&self, window: usize, address: Address) -> &[u8] {
        let Some(window) = self.kept.get(window).filter(|w| w.segment == address.segment) else { return &[] };
        let at = u64::from(address.offset).checked_sub(window.start).and_then(|at| usize::try_from(at).ok());
        let held = self.buffer.get(window.held.clone()).unwrap_or_default();
        at.and_then(|at| held.get(at..)).unwrap_or_default()
    }

    /// A stretch that holds `least` bytes from `address` on, or as many as there are; `size` bytes are read where none does.
    ///
    /// # Errors
    /// `Io`, `WouldWait`; `Corrupt` where no unit can stand at the address.
    pub(super) fn load(&mut self, address: Address, least: u64, size: u64, direction: Direction) -> Result<usize> {
        let last = self.kept.len().saturating_sub(1);
        if self.from(last, address).len() as u64 >= least {
            return Ok(last);
        }
        let source = self.enter(address.segment)?;
        let (file, end) = (Arc::clone(&source.file), source.end);
        let offset = u64::from(address.offset);
        if offset < DATA_START || offset >= end {
            return Err(self.corrupt(address, Malformed("a unit is said to stand where none can")));
        }
        let least_end = (offset + least).min(end);
        if self.from(last, address).len() as u64 >= least_end - offset {
            return Ok(last);
        }
        let size = size.max(least);
        let (start, stop) = match direction {
            Direction::Forward => (offset, (offset + size).min(end)),
            Direction::Backward => (least_end.saturating_sub(size).max(DATA_START).min(offset), least_end),
        };
        self.stop_if(self.used as u64 + (stop - start) > SPARE_BYTES as u64)?;
        if self.used > KEPT_BYTES
            && let Some(last) = self.kept.pop()
        {
            self.used = last.held.start;
        }
        let held = self.used..self.used + usize::try_from(stop - start).unwrap_or(0);
        if self.buffer.len() < held.end {
            self.buffer.resize(held.end, 0);
        }
        let buffer = self.buffer.get_mut(held.clone()).unwrap_or_default();
        let read = match self.wait {
            Wait::Never => file.read_at_now(buffer, start),
            Wait::AsLongAsItTakes => file.read_at(buffer, start),
        };
        if let Err(error) = read {
            self.stop_if(error.kind() == std::io::ErrorKind::WouldBlock)?;
            let path = segment::segment_path(&self.shared.path, address.segment);
            return Err(StoreError::io(path, "reading a segment", error));
        }
        self.used = held.end;
        self.kept.push(Window { segment: address.segment, start, held });
        Ok(self.kept.len() - 1)
    }

    fn enter(&mut self, segment: u32) -> Result<&Source> {
        let source = match self.source.take() {
            Some(source) if source.segment == segment => source,
            _ => {
                let shared = self.shared;
                let file = chain::file(&shared.chain, &*shared.door, &shared.path, segment, self.wait)?;
                let end = match self.chain()?.get(segment).and_then(|s| s.seal) {
                    Some(seal) => seal.end,
                    None => self.shared.reach.lock().point.offset,
                };
                Source { segment, file, end }
            }
        };
        Ok(self.source.insert(source))
    }
}

impl Drop for Windows<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(SPARE_BYTES);
        self.buffer.shrink_to(SPARE_BYTES);
        *self.shared.spare.lock() = std::mem::take(&mut self.buffer);
    }
}
