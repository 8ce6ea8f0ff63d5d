//! The checkpoint of entity heads: what a scan up to one batch would find. Derived, and bound to that batch.
//!
//! Heads may be newer than the batch, since they are copied in slices while commits go on; the batches after it are
//! scanned at the next opening and set them again. A checkpoint that cannot be read or is not of this log is ignored.

use super::format::{Address, BATCH_HEADER, BatchHeader, SegmentHeader, batch_hash};
use super::heads::{Head, Heads};
use super::scan::ScanPoint;
use super::whole_file::{FrameReader, FrameWriter};
use crate::io::{Door, File};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"EGOCHK\0\0";
/// Heads copied at a time, so that a commit never waits long for the lock.
const SLICE: usize = 4096;

/// The batch up to which a checkpoint reaches, and the counters that stood after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The segment of the batch.
    pub segment: u32,
    /// The segment's salt.
    pub salt: u64,
    /// Where the batch starts; 0 where the segment holds none yet.
    pub last_batch: u64,
    /// What follows the batch; `previous` is the batch's own hash.
    pub point: ScanPoint,
    /// Position of the last event.
    pub position: u64,
    /// Time of the batch.
    pub time: u64,
    /// Events per shard.
    pub shard_positions: Vec<u64>,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Checkpoint {
    /// How far it reaches.
    pub reach: Reach,
    /// The heads.
    pub heads: Heads,
}

/// Where the checkpoint of a store is.
#[must_use]
pub fn path(store: &Path) -> PathBuf {
    store.join("checkpoint")
}

/// Writes a checkpoint of `heads`, of which everything up to `reach` is durable.
///
/// # Errors
/// What the door says; the store is none the worse.
pub fn write(door: &dyn Door, store: &Path, store_id: [u8; 16], reach: &Reach, heads: &Mutex<Heads>) -> io::Result<()> {
    let path = path(store);
    let mut frame = FrameWriter::new(door, &path, MAGIC);
    frame.bytes(&store_id).u32(reach.segment).u64(reach.salt);
    frame.u64(reach.last_batch).u64(reach.point.offset).u64(reach.point.number).u64(reach.point.previous);
    frame.u64(reach.position).u64(reach.time).u32(reach.shard_positions.len() as u32);
    for position in &reach.shard_positions {
        frame.u64(*position);
    }
    let mut from = 0;
    loop {
        let heads = heads.lock();
        let to = heads.known().min(from + SLICE);
        heads.visit(from..to, &mut |kind, id, head| {
            frame.text(kind.as_bytes()).text(id);
            frame.u64(head.revision).u32(head.address.segment).u32(head.address.offset);
        });
        if to == heads.known() {
            break;
        }
        drop(heads);
        frame.spill();
        from = to;
    }
    frame.replace()
}

/// Reads the checkpoint of a store; `None` where there is none that can be read and used.
#[must_use]
pub fn read(door: &dyn Door, store: &Path, store_id: [u8; 16], shards: u16) -> Option<Checkpoint> {
    let mut frame = FrameReader::read(door, &path(store), MAGIC).ok()?.ok()?;
    if frame.id() != store_id {
        return None;
    }
    let (segment, salt) = (frame.u32(), frame.u64());
    let last_batch = frame.u64();
    let point = ScanPoint { offset: frame.u64(), number: frame.u64(), previous: frame.u64() };
    let (position, time) = (frame.u64(), frame.u64());
    if frame.u32() != u32::from(shards) {
        return None;
    }
    let shard_positions = (0..shards).map(|_| frame.u64()).collect();
    let mut heads = Heads::default();
    while frame.has_more() {
        let (kind, id) = (frame.text(), frame.text());
        let revision = frame.u64();
        let address = Address { segment: frame.u32(), offset: frame.u32() };
        heads.set(&kind, &id, Head { revision, address });
    }
    frame.finish().ok()?;
    Some(Checkpoint { reach: Reach { segment, salt, last_batch, point, position, time, shard_positions }, heads })
}

/// Whether the batch that a checkpoint reaches to is the one that stands in the segment.
///
/// # Errors
/// What the door says.
pub fn describes(reach: &Reach, header: &SegmentHeader, file: &dyn File) -> io::Result<bool> {
    if reach.segment != header.id || reach.salt != header.salt {
        return Ok(false);
    }
    if reach.last_batch == 0 {
        return Ok(reach.point == ScanPoint::start_of(header));
    }
    let header_end = reach.last_batch.saturating_add(BATCH_HEADER as u64);
    if header_end > reach.point.offset || file.size()? < reach.point.offset {
        return Ok(false);
    }
    let mut bytes = [0; BATCH_HEADER];
    file.read_at(&mut bytes, reach.last_batch)?;
    let Ok(batch) = BatchHeader::decode(&bytes, header.salt) else { return Ok(false) };
    let end = reach.last_batch + BATCH_HEADER as u64 + u64::from(batch.body_len);
    let after = ScanPoint { offset: end, number: batch.number + 1, previous: batch_hash(&bytes, header.salt) };
    Ok(reach.point == after)
}
