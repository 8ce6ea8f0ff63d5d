//! Opens what a process left behind: finds where the valid log ends and decides what stands there.
//!
//! - Bytes that a sync covered and that cannot be read are damage: the store is refused, nothing is changed.
//! - Behind the last valid batch of an active segment, unreadable bytes are a torn tail: dropped, and reported.
//! - The last batch itself is undecided unless something written later proves its sync: it may be valid in the page cache
//!   alone. It is copied into a new segment and synced there before anything is served.
//! - A segment that was not closed cleanly is never appended to.

use super::batch::{BatchBuilder, Place};
use super::chain::Chain;
use super::checkpoint::{self, Reach};
use super::format::{
    Address, BATCH_HEADER, BatchHeader, Committed, DATA_START, HEADER_BLOCK, Malformed, Origin, SegmentHeader,
    UnitView, units_of,
};
use super::heads::{Head, Heads};
use super::manifest::{Manifest, Seal, Segment};
use super::scan::{ScanPoint, Scanner};
use super::{LogOptions, Torn, segment};
use crate::entities::shard::entity_hash;
use crate::error::{Result, StoreError};
use crate::io::{Door, File, Mode};
use std::path::Path;
use std::sync::Arc;

/// A log ready to be appended to.
pub(super) struct Recovered {
    pub(super) store: [u8; 16],
    pub(super) shards: u16,
    pub(super) chain: Chain,
    pub(super) heads: Heads,
    pub(super) reach: Reach,
    pub(super) active: SegmentHeader,
    pub(super) filled: u64,
    pub(super) torn: Option<Torn>,
    pub(super) undecided_copied: bool,
    pub(super) scanned_bytes: u64,
    /// A segment that was sealed while opening, for the housekeeper.
    pub(super) sealed: Option<u32>,
    /// Whether the last batch holds units and nothing proves it durable to a later opening.
    pub(super) unproven: bool,
}

/// The last valid batch of the active segment, held back until it is decided.
struct Held {
    header: BatchHeader,
    offset: u64,
    hash: u64,
    body: Vec<u8>,
}

struct Recovery<'a> {
    door: &'a dyn Door,
    path: &'a Path,
    options: &'a LogOptions,
    heads: Heads,
    reach: Reach,
    /// How far a checkpoint says that syncs have covered the log, where its heads cannot be used.
    proven: Option<Reach>,
    scanned_bytes: u64,
}

/// Makes a store in an empty directory.
///
/// # Errors
/// `Io`, `Full`.
pub(super) fn create(door: &dyn Door, path: &Path, options: &LogOptions) -> Result<Recovered> {
    let mut store = [0; 16];
    door.random(&mut store);
    let header = SegmentHeader {
        store,
        shards: options.shards,
        origin: Origin::First,
        id: 1,
        generation: 0,
        salt: super::random_u64(door),
        predecessor: 0,
        predecessor_end: 0,
        predecessor_hash: 0,
        first_batch: 1,
        first_position: 1,
        created: door.wall_nanos(),
    };
    let filled = options.first_fill();
    let file = segment::prepare(door, path, 1, filled)?;
    segment::start(door, path, &*file, &header)?;
    let chain = Chain::new(vec![Segment { header, seal: None }]);
    Ok(Recovered {
        store,
        shards: options.shards,
        chain,
        heads: Heads::default(),
        reach: start_of(&header, 0),
        active: header,
        filled,
        torn: None,
        undecided_copied: false,
        scanned_bytes: 0,
        sealed: None,
        unproven: false,
    })
}

fn start_of(header: &SegmentHeader, position: u64) -> Reach {
    Reach {
        segment: header.id,
        salt: header.salt,
        last_batch: 0,
        point: ScanPoint::start_of(header),
        position,
        time: 0,
        shard_positions: vec![0; usize::from(header.shards)],
    }
}

/// Opens the segments with these ids, in order, that an earlier process left behind.
///
/// # Errors
/// `Corrupt`, `Format`, `Io`, `Full`.
pub(super) fn recover(
    door: &dyn Door,
    path: &Path,
    options: &LogOptions,
    manifest: Option<&Manifest>,
    ids: &[u32],
) -> Result<Recovered> {
    let segments = read_chain(door, path, manifest, ids)?;
    let Some(first) = segments.first().copied() else {
        return Err(corrupt(&Manifest::path(path), 0, "the store has no segments"));
    };
    let (store, shards) = (first.header.store, first.header.shards);
    let mut recovery = Recovery {
        door,
        path,
        options,
        heads: Heads::default(),
        reach: start_of(&first.header, 0),
        proven: None,
        scanned_bytes: 0,
    };
    recovery.load_checkpoint(store, shards, &segments)?;
    let first = recovery.reach.segment;
    for segment in segments.iter().filter(|s| s.seal.is_some() && s.header.id >= first) {
        recovery.scan_sealed(segment)?;
    }
    recovery.finish(segments)
}

/// Reads the header of every segment and checks that each continues the one before it and that none is missing.
fn read_chain(door: &dyn Door, path: &Path, manifest: Option<&Manifest>, ids: &[u32]) -> Result<Vec<Segment>> {
    let listed = manifest.map(|m| m.segments.as_slice()).unwrap_or_default();
    let last = ids.iter().copied().chain(listed.iter().map(|l| l.id)).max().unwrap_or(0);
    let mut segments: Vec<Segment> = Vec::new();
    let mut size_before = 0;
    for id in 1..=last {
        let (opened, header) = segment::open(door, path, id, Mode::Read)?;
        let file = segment::segment_path(path, id);
        let size = opened.size().map_err(|e| StoreError::io(&file, "reading the size of a segment", e))?;
        if let Some(before) = segments.last_mut() {
            if size_before < header.predecessor_end {
                let cut = segment::segment_path(path, before.header.id);
                return Err(corrupt(&cut, size_before, "the segment is shorter than its last batch"));
            }
            let follows = header.predecessor == before.header.id && header.store == before.header.store;
            if !follows || header.shards != before.header.shards {
                return Err(corrupt(&file, 0, "the segment does not continue the one before it"));
            }
            before.seal = Some(Seal { end: header.predecessor_end, hash: header.predecessor_hash });
        }
        segments.push(Segment { header, seal: None });
        size_before = size;
    }
    for (listed, segment) in listed.iter().zip(&segments) {
        let file = segment::segment_path(path, listed.id);
        if listed.salt != segment.header.salt || manifest.is_some_and(|m| m.store != segment.header.store) {
            return Err(corrupt(&file, 0, "the segment is not the one that the manifest lists"));
        }
        if listed.seal.is_some() && listed.seal != segment.seal {
            return Err(corrupt(&file, 0, "the next segment is missing or does not agree with the manifest"));
        }
    }
    Ok(segments)
}

fn corrupt(path: &Path, offset: u64, detail: &str) -> StoreError {
    StoreError::Corrupt { path: path.to_path_buf(), offset, detail: detail.to_owned() }
}

impl Recovery<'_> {
    fn load_checkpoint(&mut self, store: [u8; 16], shards: u16, segments: &[Segment]) -> Result<()> {
        let path = checkpoint::path(self.path);
        let io = |e| StoreError::io(&path, "reading the checkpoint", e);
        let Some(read) = checkpoint::read(self.door, self.path, store, shards) else { return Ok(()) };
        let Some(segment) = segments.iter().find(|s| s.header.id == read.reach.segment) else {
            let missing = segment::segment_path(self.path, read.reach.segment);
            return Err(corrupt(&missing, 0, "the segment is missing, and the checkpoint reaches into it"));
        };
        let (file, header) = segment::open(self.door, self.path, read.reach.segment, Mode::Read)?;
        let within = segment.seal.is_none_or(|seal| read.reach.point.offset <= seal.end);
        if within && checkpoint::describes(&read.reach, &header, &*file).map_err(io)? {
            self.heads = read.heads;
            self.reach = read.reach;
        } else if read.reach.salt == header.salt {
            self.proven = Some(read.reach);
        }
        Ok(())
    }

    /// A scanner over a segment, from where the log is known on.
    fn scanner(&self, segment: &Segment) -> Result<(Scanner, Arc<dyn File>, u64)> {
        let id = segment.header.id;
        let path = segment::segment_path(self.path, id);
        let (file, header) = segment::open(self.door, self.path, id, Mode::Read)?;
        let size = file.size().map_err(|e| StoreError::io(&path, "reading the size of a segment", e))?;
        let limit = segment.seal.map_or(size, |seal| seal.end);
        if limit > size {
            return Err(corrupt(&path, size, "the segment is shorter than its last batch"));
        }
        let point = if id == self.reach.segment { self.reach.point } else { ScanPoint::start_of(&header) };
        Ok((Scanner::new(Arc::clone(&file), &path, &header, point, limit), file, limit))
    }

    fn enter(&mut self, header: &SegmentHeader) {
        if self.reach.segment != header.id {
            let started = start_of(header, self.reach.position);
            self.reach = Reach {
                time: self.reach.time,
                shard_positions: std::mem::take(&mut self.reach.shard_positions),
                ..started
            };
        }
    }

    fn scan_sealed(&mut self, segment: &Segment) -> Result<()> {
        let Some(seal) = segment.seal else { return Ok(()) };
        self.enter(&segment.header);
        let path = segment::segment_path(self.path, segment.header.id);
        let (mut scanner, _, _) = self.scanner(segment)?;
        while let Some(batch) = scanner.next_batch()? {
            let (header, offset, hash) = (batch.header, batch.offset, batch.hash);
            self.apply(&header, offset, hash, batch.body).map_err(|m| corrupt(&path, offset, m.0))?;
        }
        let point = scanner.point();
        if point.offset != seal.end {
            return Err(corrupt(&path, point.offset, scanner.stopped.0));
        }
        if point.previous != seal.hash {
            return Err(corrupt(
                &path,
                point.offset,
                "the segment does not end with the batch that the next one names",
            ));
        }
        Ok(())
    }

    /// Takes a batch that is durable into heads and counters.
    fn apply(&mut self, header: &BatchHeader, offset: u64, hash: u64, body: &[u8]) -> Result<(), Malformed> {
        for unit in units_of(body) {
            let (at, unit) = unit?;
            let place = offset + BATCH_HEADER as u64 + at as u64;
            let address = Address { segment: header.segment, offset: u32::try_from(place).unwrap_or(u32::MAX) };
            self.heads.set(unit.kind, unit.id, Head { revision: unit.last_revision(), address });
            self.count(&unit);
        }
        let end = offset + (BATCH_HEADER + body.len()) as u64;
        self.scanned_bytes += end - offset;
        self.reach.last_batch = offset;
        self.reach.point = ScanPoint { offset: end, number: header.number + 1, previous: hash };
        self.reach.position += u64::from(header.positions);
        self.reach.time = header.time;
        Ok(())
    }

    fn count(&mut self, unit: &UnitView<'_>) {
        if let Some(position) = self.reach.shard_positions.get_mut(usize::from(unit.shard())) {
            *position += u64::from(unit.positions());
        }
    }

    /// Reads the active segment to its end and makes the log ready to be appended to.
    fn finish(mut self, segments: Vec<Segment>) -> Result<Recovered> {
        let Some(active) = segments.last().copied() else {
            return Err(corrupt(&Manifest::path(self.path), 0, "the store has no segments"));
        };
        self.enter(&active.header);
        let path = segment::segment_path(self.path, active.header.id);
        let (mut scanner, file, size) = self.scanner(&active)?;
        let mut held: Option<Held> = None;
        while let Some(batch) = scanner.next_batch()? {
            let (header, offset, hash, body) = (batch.header, batch.offset, batch.hash, batch.body.to_vec());
            if let Some(proven) = held.replace(Held { header, offset, hash, body }) {
                self.apply(&proven.header, proven.offset, proven.hash, &proven.body)
                    .map_err(|m| corrupt(&path, proven.offset, m.0))?;
            }
        }
        let end = scanner.point().offset;
        if let Some(later) = scanner.later_batch()? {
            let detail = format!("{}, and a later batch stands at offset {later}", scanner.stopped.0);
            return Err(corrupt(&path, end, &detail));
        }
        if let Some(proven) = self.proven.as_ref().filter(|p| p.segment == active.header.id && end < p.point.offset) {
            let synced = proven.point.offset;
            let detail = format!("{}, and the checkpoint knows of a sync up to offset {synced}", scanner.stopped.0);
            return Err(corrupt(&path, end, &detail));
        }
        let io = |e| StoreError::io(&path, "reading a segment", e);
        let torn_end = segment::last_written(&*file, end, size).map_err(io)?;
        let torn = (torn_end > end).then(|| Torn { path: path.clone(), offset: end, bytes: torn_end - end });
        if torn.is_none() && self.closed_cleanly(held.as_ref(), &*file, &active.header)? {
            self.go_on(segments, active.header, held, size)
        } else {
            self.begin_segment(segments, active.header, held, torn)
        }
    }

    /// Whether the log ends with the mark of an orderly close, which may stand just before the checkpoint's end.
    fn closed_cleanly(&self, held: Option<&Held>, file: &dyn File, header: &SegmentHeader) -> Result<bool> {
        if let Some(held) = held {
            return Ok(held.header.is_clean_close());
        }
        if self.reach.last_batch == 0 {
            return Ok(false);
        }
        let mut bytes = [0; BATCH_HEADER];
        let path = segment::segment_path(self.path, header.id);
        file.read_at(&mut bytes, self.reach.last_batch).map_err(|e| StoreError::io(path, "reading a segment", e))?;
        Ok(BatchHeader::decode(&bytes, header.salt).is_ok_and(|batch| batch.is_clean_close()))
    }

    /// Goes on in a segment that was closed cleanly. The closing mark is written and synced again: a sync that failed may
    /// have left it in the page cache alone, and what follows must not stand behind a hole.
    fn go_on(
        mut self,
        segments: Vec<Segment>,
        header: SegmentHeader,
        held: Option<Held>,
        size: u64,
    ) -> Result<Recovered> {
        let path = segment::segment_path(self.path, header.id);
        if let Some(mark) = held {
            self.apply(&mark.header, mark.offset, mark.hash, &mark.body)
                .map_err(|m| corrupt(&path, mark.offset, m.0))?;
        }
        let (file, _) = segment::open(self.door, self.path, header.id, Mode::Write)?;
        let mut mark = [0; BATCH_HEADER];
        file.read_at(&mut mark, self.reach.last_batch)
            .and_then(|()| file.write_at(&mark, self.reach.last_batch))
            .and_then(|()| file.datasync())
            .map_err(|e| StoreError::io(&path, "syncing the last mark", e))?;
        let chain = Chain::new(segments);
        Ok(self.recovered(chain, header, size, None, false, None))
    }

    /// Leaves the active segment as it is and goes on in a new one, into which the undecided last batch is copied.
    fn begin_segment(
        mut self,
        mut segments: Vec<Segment>,
        active: SegmentHeader,
        held: Option<Held>,
        torn: Option<Torn>,
    ) -> Result<Recovered> {
        let seal = Seal { end: self.reach.point.offset, hash: self.reach.point.previous };
        let header = SegmentHeader {
            origin: Origin::Recovery,
            id: active.id + 1,
            salt: super::random_u64(self.door),
            generation: 0,
            predecessor: active.id,
            predecessor_end: seal.end,
            predecessor_hash: seal.hash,
            first_batch: self.reach.point.number,
            first_position: self.reach.position + 1,
            created: self.door.wall_nanos(),
            ..active
        };
        self.enter(&header);
        let undecided = held.filter(|held| !held.header.is_mark());
        let copied = undecided.is_some();
        let needed = DATA_START + undecided.as_ref().map_or(0, |held| (held.body.len() + 2 * BATCH_HEADER) as u64);
        let filled = self.options.first_fill().max(needed.next_multiple_of(HEADER_BLOCK));
        let file = segment::prepare(self.door, self.path, header.id, filled)?;
        if let Some(undecided) = &undecided {
            self.copy(undecided, &header, &*file)?;
        }
        segment::start(self.door, self.path, &*file, &header)?;
        if let Some(before) = segments.last_mut() {
            before.seal = Some(seal);
        }
        segments.push(Segment { header, seal: None });
        let chain = Chain::new(segments);
        Ok(self.recovered(chain, header, filled, torn, copied, Some(active.id)))
    }

    fn copy(&mut self, undecided: &Held, header: &SegmentHeader, file: &dyn File) -> Result<()> {
        let path = segment::next_path(self.path, header.id);
        let place = Place {
            segment: header.id,
            salt: header.salt,
            offset: self.reach.point.offset,
            number: self.reach.point.number,
            previous: self.reach.point.previous,
            position: self.reach.position + 1,
            time: undecided.header.time,
        };
        let mut builder = BatchBuilder::default();
        for unit in units_of(&undecided.body) {
            let (at, unit) = unit.map_err(|m| corrupt(&path, undecided.offset, m.0))?;
            let hash = entity_hash(unit.id);
            let head = Head { revision: unit.last_revision(), address: builder.next_address(&place) };
            let committed = Committed {
                position: unit.position(),
                shard_position: unit.shard_position(),
                previous: moved(unit.previous(), undecided, &place),
                time: unit.time(),
            };
            let bytes = undecided.body.get(at..at + unit.len()).unwrap_or_default();
            builder.push(bytes, unit.positions(), &committed);
            self.heads.advance(unit.kind, unit.id, hash, head);
            self.count(&unit);
        }
        self.heads.publish();
        let positions = builder.positions();
        let (bytes, hash) = builder.finish(&place, false);
        file.write_at(bytes, place.offset)
            .and_then(|()| file.datasync())
            .map_err(|e| segment::space_or_io(self.path, &path, "copying the last batch", e))?;
        let end = place.offset + bytes.len() as u64;
        self.reach.last_batch = place.offset;
        self.reach.point = ScanPoint { offset: end, number: place.number + 1, previous: hash };
        self.reach.position += u64::from(positions);
        self.reach.time = self.reach.time.max(place.time);
        Ok(())
    }

    fn recovered(
        self,
        chain: Chain,
        active: SegmentHeader,
        filled: u64,
        torn: Option<Torn>,
        undecided_copied: bool,
        sealed: Option<u32>,
    ) -> Recovered {
        Recovered {
            store: active.store,
            shards: active.shards,
            chain,
            heads: self.heads,
            reach: self.reach,
            active,
            filled,
            torn,
            undecided_copied,
            scanned_bytes: self.scanned_bytes,
            sealed,
            unproven: undecided_copied,
        }
    }
}

/// Where a unit that another one names stands once the undecided batch has moved to `place`.
fn moved(address: Address, undecided: &Held, place: &Place) -> Address {
    let within = u64::from(address.offset).checked_sub(undecided.offset);
    match within.filter(|_| address.segment == undecided.header.segment) {
        Some(within) => {
            Address { segment: place.segment, offset: u32::try_from(place.offset + within).unwrap_or(u32::MAX) }
        }
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::*;
    use crate::io::sim::{Crash, SimDoor};
    use crate::journal::{Content, EntityKey, Journal, Outcome, Read, Record, Unit, Wait};

    fn open(door: &SimDoor) -> Log {
        let options = LogOptions { idle_mark_millis: 0, ..LogOptions::default() };
        Log::open(Arc::new(door.clone()), Path::new("/data/s"), options).unwrap()
    }

    fn store(log: &Log, first_revision: u64) {
        let (ring, bell) = std::sync::mpsc::sync_channel(16);
        log.on_settled(Arc::new(move || ring.try_send(()).unwrap_or_default()));
        let entity = EntityKey::new(Arc::from("Account"), Arc::from("a"));
        let records = [Record { name: "E", version: 1, payload: b"x" }];
        let content = Content::Events(&records);
        let unit = Unit { entity: &entity, first_revision, content, command: None, metadata: &[] };
        let ticket = log.append(&unit).unwrap();
        log.kick();
        while log.settled() < ticket {
            bell.recv().unwrap();
        }
        assert!(matches!(log.outcome(ticket), Outcome::Stored));
    }

    #[test]
    fn a_copied_batch_keeps_its_links_where_the_checkpoint_knew_of_it_already() {
        let door = SimDoor::new(1);
        let log = open(&door);
        store(&log, 1);
        let reach = log.shared.reach();
        store(&log, 2);
        // A commit came in while the heads were copied: they hold the batch that is undecided after the crash.
        checkpoint::write(&door, &log.shared.path, log.shared.store, &reach, &log.shared.heads).unwrap();
        door.crash();
        drop(log);
        let log = open(&door.after_crash(Crash::HARSH, 1));
        assert!(log.opened().undecided_copied);
        let mut revisions = Vec::new();
        let entity = EntityKey::new(Arc::from("Account"), Arc::from("a"));
        let read = log.read_entity(&entity, 1, Wait::AsLongAsItTakes, &mut |event| {
            revisions.push(event.revision);
            Read::More
        });
        assert_eq!((read.unwrap(), revisions), (2, vec![1, 2]));
        log.close().unwrap();
    }
}
