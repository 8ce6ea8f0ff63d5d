//! The sidecar of a sealed segment: for each entity hash, where its units stand. Derived, and bound to that segment.
//!
//! A hit is a hint: the unit read there says whose it is. A sidecar that cannot be read is passed over, and the chain of
//! previous addresses in the units themselves leads the same way, slower.

use super::format::units_of;
use super::manifest::Segment;
use super::scan::{ScanPoint, Scanner};
use super::segment;
use super::whole_file::{FrameReader, FrameWriter};
use crate::entities::shard::entity_hash;
use crate::error::{Result, StoreError};
use crate::io::{Door, Mode};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"EGOIDX\0\0";

/// Where the units of each entity stand in one sealed segment.
#[derive(Debug)]
pub struct Sidecar {
    /// Entity hash, first index in `offsets`, count; sorted by hash.
    entries: Vec<(u64, u32, u32)>,
    offsets: Vec<u32>,
}

/// Where the sidecar of segment `id` is.
#[must_use]
pub fn path(store: &Path, id: u32) -> PathBuf {
    store.join(format!("{id:08}.idx"))
}

impl Sidecar {
    /// Offsets of the units of entities with this hash, in order.
    #[must_use]
    pub fn offsets(&self, hash: u64) -> &[u32] {
        let Ok(at) = self.entries.binary_search_by_key(&hash, |entry| entry.0) else { return &[] };
        let Some(&(_, first, count)) = self.entries.get(at) else { return &[] };
        self.offsets.get(first as usize..(first + count) as usize).unwrap_or_default()
    }

    /// Reads the sidecar of a sealed segment; `None` where there is none that can be read and used.
    #[must_use]
    pub fn read(door: &dyn Door, store: &Path, segment: &Segment) -> Option<Self> {
        let mut frame = FrameReader::read(door, &path(store, segment.header.id), MAGIC).ok()?.ok()?;
        let bound = frame.id() == segment.header.store
            && frame.u32() == segment.header.id
            && frame.u32() == segment.header.generation
            && frame.u64() == segment.header.salt
            && Some(frame.u64()) == segment.seal.map(|seal| seal.end);
        if !bound {
            return None;
        }
        let mut entries = Vec::new();
        let mut units = 0u32;
        for _ in 0..frame.u32() {
            let (hash, count) = (frame.u64(), frame.u32());
            entries.push((hash, units, count));
            units = units.saturating_add(count);
            if !frame.has_more() {
                return None;
            }
        }
        let mut offsets = Vec::new();
        while frame.has_more() {
            offsets.push(frame.u32());
        }
        let whole = frame.finish().is_ok() && offsets.len() == units as usize && entries.is_sorted_by_key(|e| e.0);
        whole.then_some(Self { entries, offsets })
    }
}

/// Scans a sealed segment and writes its sidecar.
///
/// # Errors
/// `Io`; `Corrupt` where the segment does not reach its end.
pub fn write(door: &dyn Door, store: &Path, segment: &Segment) -> Result<()> {
    let Some(seal) = segment.seal else { return Ok(()) };
    let id = segment.header.id;
    let (file, header) = segment::open(door, store, id, Mode::Read)?;
    let segment_path = segment::segment_path(store, id);
    let corrupt = |offset: u64, detail: &str| StoreError::Corrupt {
        path: segment_path.clone(),
        offset,
        detail: detail.to_owned(),
    };
    let mut scanner = Scanner::new(file, &segment_path, &header, ScanPoint::start_of(&header), seal.end);
    let mut units = Vec::new();
    while let Some(batch) = scanner.next_batch()? {
        for unit in units_of(batch.body) {
            let (at, unit) = unit.map_err(|m| corrupt(batch.offset, m.0))?;
            let offset = u32::try_from(batch.body_offset() + at as u64).unwrap_or(u32::MAX);
            units.push((entity_hash(unit.id), offset));
        }
    }
    if scanner.point().offset != seal.end {
        return Err(corrupt(scanner.point().offset, scanner.stopped.0));
    }
    units.sort_unstable();
    let path = path(store, id);
    let mut frame = FrameWriter::new(door, &path, MAGIC);
    frame.bytes(&header.store).u32(id).u32(header.generation).u64(header.salt).u64(seal.end);
    let groups = || units.chunk_by(|a, b| a.0 == b.0);
    frame.u32(groups().count() as u32);
    for group in groups() {
        if let Some((hash, _)) = group.first() {
            frame.u64(*hash).u32(group.len() as u32);
        }
        frame.spill();
    }
    for (_, offset) in &units {
        frame.u32(*offset);
        frame.spill();
    }
    frame.replace().map_err(|e| StoreError::io(path.clone(), "writing a sidecar", e))
}
