//! The segments of an open store, in order, and a bounded set of open files to read them.

use super::manifest::{Listed, Manifest, Seal, Segment};
use super::segment;
use super::sidecar::Sidecar;
use crate::error::{Result, StoreError};
use crate::io::{Door, File, Mode};
use crate::journal::Wait;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// Descriptors of segments kept open for reading.
const OPEN_FILES: usize = 64;
/// Sidecars kept in memory.
const OPEN_SIDECARS: usize = 8;

/// The segments of a store.
#[derive(Debug)]
pub struct Chain {
    segments: Vec<Segment>,
    files: Mutex<VecDeque<(u32, Arc<dyn File>)>>,
    sidecars: Mutex<VecDeque<(u32, Arc<Sidecar>)>>,
}

impl Chain {
    /// A chain of segments in order of id, all but the last sealed.
    #[must_use]
    pub fn new(segments: Vec<Segment>) -> Self {
        Self { segments, files: Mutex::new(VecDeque::new()), sidecars: Mutex::new(VecDeque::new()) }
    }

    /// Seals the active segment and goes on in another.
    pub fn roll(&mut self, seal: Seal, next: Segment) {
        if let Some(active) = self.segments.last_mut() {
            active.seal = Some(seal);
        }
        self.segments.push(next);
    }

    /// A segment by its id.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Segment> {
        let first = self.segments.first()?.header.id;
        self.segments.get(id.checked_sub(first)? as usize)
    }

    /// The last segment that starts at or before `position`, or the first.
    #[must_use]
    pub fn holding(&self, position: u64) -> Option<&Segment> {
        let after = self.segments.partition_point(|s| s.header.first_position <= position);
        self.segments.get(after.saturating_sub(1))
    }

    /// The manifest that lists these segments.
    #[must_use]
    pub fn manifest(&self, store: [u8; 16], shards: u16) -> Manifest {
        let listed = |s: &Segment| Listed { id: s.header.id, salt: s.header.salt, seal: s.seal };
        Manifest { store, shards, segments: self.segments.iter().map(listed).collect() }
    }

    /// The sidecar of a sealed segment; `None` where it cannot be read, or is not of this segment.
    ///
    /// # Errors
    /// `WouldWait` where it would have to be read.
    pub fn sidecar(&self, door: &dyn Door, store: &Path, id: u32, wait: Wait) -> Result<Option<Arc<Sidecar>>> {
        if let Some(sidecar) = keep(&mut self.sidecars.lock(), id) {
            return Ok(Some(sidecar));
        }
        let Some(segment) = self.get(id).filter(|s| s.seal.is_some()) else { return Ok(None) };
        if wait == Wait::Never {
            return Err(StoreError::WouldWait);
        }
        let Some(sidecar) = Sidecar::read(door, store, segment).map(Arc::new) else { return Ok(None) };
        add(&mut self.sidecars.lock(), OPEN_SIDECARS, id, Arc::clone(&sidecar));
        Ok(Some(sidecar))
    }
}

/// A segment's file, open for reading. The chain is not held while it is opened: the committer may need it meanwhile.
///
/// # Errors
/// `Io`, `Corrupt`; `WouldWait` where it would have to be opened, or somebody is about to change the chain.
pub fn file(chain: &RwLock<Chain>, door: &dyn Door, store: &Path, id: u32, wait: Wait) -> Result<Arc<dyn File>> {
    let (kept, salt) = {
        let chain = match wait {
            Wait::Never => chain.try_read().ok_or(StoreError::WouldWait)?,
            Wait::AsLongAsItTakes => chain.read(),
        };
        (keep(&mut chain.files.lock(), id), chain.get(id).map(|segment| segment.header.salt))
    };
    if let Some(file) = kept {
        return Ok(file);
    }
    if wait == Wait::Never {
        return Err(StoreError::WouldWait);
    }
    let (file, header) = segment::open(door, store, id, Mode::Read)?;
    if salt != Some(header.salt) {
        return Err(StoreError::Corrupt {
            path: segment::segment_path(store, id),
            offset: 0,
            detail: "the segment is not the one that the store was opened with".to_owned(),
        });
    }
    let chain = chain.read();
    let mut files = chain.files.lock();
    Ok(keep(&mut files, id).unwrap_or_else(|| {
        add(&mut files, OPEN_FILES, id, Arc::clone(&file));
        file
    }))
}

/// Finds an entry and moves it to the young end.
fn keep<T: Clone>(kept: &mut VecDeque<(u32, T)>, id: u32) -> Option<T> {
    let at = kept.iter().rposition(|(held, _)| *held == id)?;
    let entry = kept.remove(at)?;
    let value = entry.1.clone();
    kept.push_back(entry);
    Some(value)
}

fn add<T>(kept: &mut VecDeque<(u32, T)>, most: usize, id: u32, value: T) {
    kept.push_back((id, value));
    if kept.len() > most {
        kept.pop_front();
    }
}
