//! The committer: one thread that gives positions, writes, syncs and settles. It never touches Python.
//!
//! Takes all that waits in the queue, verifies that each unit continues its entity, writes one batch into filled space with one
//! call, syncs it with one call, and only then lets anybody see it. Any write or sync error poisons the log: it is never
//! retried, and nothing is acknowledged after it.

use super::Shared;
use super::batch::{BatchBuilder, Place};
use super::checkpoint::Reach;
use super::format::{BATCH_HEADER, Committed, DATA_START, Origin, SegmentHeader, UnitView};
use super::heads::Head;
use super::manifest::{Seal, Segment};
use super::queue::{Pending, Taken};
use super::scan::ScanPoint;
use super::segment;
use super::space::Job;
use super::walk::Standing;
use crate::entities::shard::entity_hash;
use crate::error::{Result, StoreError};
use crate::io::{File, Mode};
use crate::journal::Ticket;
use hashbrown::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A batch takes no further unit once its body has this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// The state of the committing thread.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    header: SegmentHeader,
    reach: Reach,
    builder: BatchBuilder,
    /// Entities of which a unit was refused while later ones were accepted, with the reason.
    skipping: HashMap<u64, StoreError>,
    since_checkpoint: u64,
    /// Whether a batch of more than notes stands last, so that a mark would prove it durable.
    unproven: bool,
}

impl Committer {
    /// A committer that goes on in an open segment from where the log stands.
    pub(super) fn new(shared: Arc<Shared>, file: Arc<dyn File>, header: SegmentHeader, unproven: bool) -> Self {
        let reach = shared.reach();
        Self {
            shared,
            file,
            header,
            reach,
            builder: BatchBuilder::default(),
            skipping: HashMap::new(),
            since_checkpoint: 0,
            unproven,
        }
    }

    /// Commits until the queue is closed or a write fails.
    pub(super) fn run(mut self) {
        let mut pending = Pending::default();
        let idle_mark = match self.shared.options.idle_mark_millis {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        };
        loop {
            let done = match self.shared.queue.take(&mut pending, idle_mark, self.unproven) {
                Taken::Units => self.commit(&pending),
                Taken::Idle => self.mark(false),
                Taken::Closing => {
                    if let Err(error) = self.mark(true) {
                        self.poison(&error);
                    }
                    return;
                }
            };
            if let Err(error) = done {
                self.poison(&error);
                return;
            }
        }
    }

    fn poison(&self, error: &StoreError) {
        self.shared.poison(&error.to_string());
    }

    fn commit(&mut self, pending: &Pending) -> Result<()> {
        let mut next = 0;
        let mut full = None;
        while next < pending.ends.len() {
            let (mut count, mut len) = gather(pending, next, self.largest_body());
            if full.is_none() {
                full = self.make_room(len)?;
            }
            if let Some(full) = &full {
                // What still fits into filled space goes in; the first unit that does not is refused whole.
                let left = self.shared.space.filled().saturating_sub(self.reach.point.offset);
                let room = usize::try_from(left).unwrap_or(usize::MAX).saturating_sub(2 * BATCH_HEADER);
                (count, len) = gather(pending, next, room);
                if len > room {
                    self.refuse(pending, next, full.clone());
                    next += 1;
                    self.shared.settle(pending.first_ticket + next as Ticket - 1, len);
                    continue;
                }
            }
            self.write_batch(pending, next, count)?;
            next += count;
            self.shared.settle(pending.first_ticket + next as Ticket - 1, len);
        }
        Ok(())
    }

    /// Makes room for a body of `len` bytes and a mark after it; gives the error back where the disk is full.
    fn make_room(&mut self, len: usize) -> Result<Option<StoreError>> {
        let rolled = if self.fits_segment(len) { Ok(()) } else { self.roll() };
        let end = self.reach.point.offset + (len + 2 * BATCH_HEADER) as u64;
        match rolled.and_then(|()| self.shared.space.ensure(end)) {
            Ok(()) => Ok(None),
            Err(full @ StoreError::Full { .. }) => Ok(Some(full)),
            Err(error) => Err(error),
        }
    }

    /// Bytes that a batch's body can have in an empty segment, with a mark after it. Every unit that was accepted fits.
    fn largest_body(&self) -> usize {
        let room = self.shared.options.segment_bytes.saturating_sub(DATA_START);
        usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(2 * BATCH_HEADER)
    }

    /// Whether a body of `len` bytes fits the active segment with a mark after it.
    fn fits_segment(&self, len: usize) -> bool {
        self.reach.point.offset + (len + 2 * BATCH_HEADER) as u64 <= self.shared.options.segment_bytes
    }

    fn refuse(&mut self, pending: &Pending, number: usize, error: StoreError) {
        self.shared.settlement.refuse(pending.first_ticket + number as Ticket, &error);
        if let Ok(unit) = UnitView::uncommitted(unit_bytes(pending, number)) {
            self.skipping.insert(skip_key(&unit), error);
        }
    }

    fn write_batch(&mut self, pending: &Pending, first: usize, count: usize) -> Result<()> {
        let time = self.shared.door.wall_nanos().max(self.reach.time);
        let place = self.place(time);
        let mut shard_positions = std::mem::take(&mut self.reach.shard_positions);
        self.builder.clear();
        // Notes alone prove what stands before them, as a mark does, and need none: else an idle store would write for ever.
        let mut unproven = false;
        let mut heads = self.shared.heads.lock();
        for number in first..first + count {
            let bytes = unit_bytes(pending, number);
            let unit = UnitView::uncommitted(bytes).map_err(|malformed| StoreError::Format {
                path: self.shared.path.clone(),
                detail: malformed.0.to_owned(),
            })?;
            let hash = entity_hash(unit.id);
            let held = heads.latest(unit.kind, unit.id, hash);
            if unit.first_revision() != held.revision + 1 {
                let error = self.skipping.get(&skip_key(&unit)).cloned().unwrap_or_else(|| StoreError::Conflict {
                    kind: Arc::from(unit.kind),
                    id: Arc::from(unit.id),
                    expected: unit.first_revision().saturating_sub(1),
                    actual: held.revision,
                });
                self.shared.settlement.refuse(pending.first_ticket + number as Ticket, &error);
                continue;
            }
            if !self.skipping.is_empty() {
                self.skipping.remove(&skip_key(&unit));
            }
            let mut unused = 0;
            let shard_position = shard_positions.get_mut(unit.shard() as usize).unwrap_or(&mut unused);
            let committed = Committed {
                position: self.reach.position + 1 + u64::from(self.builder.positions()),
                shard_position: *shard_position,
                previous: held.address,
                time,
            };
            *shard_position += u64::from(unit.positions());
            let head = Head { revision: unit.last_revision(), address: self.builder.next_address(&place) };
            self.builder.push(bytes, unit.positions(), &committed);
            heads.advance(unit.kind, unit.id, hash, head);
            unproven |= !unit.is_note();
        }
        drop(heads);
        self.reach.shard_positions = shard_positions;
        if self.builder.units() == 0 {
            return Ok(());
        }
        self.write(&place, false)?;
        self.unproven = unproven;
        Ok(())
    }

    /// Proves what was written durable, so that at most the batch under way is undecided after a crash.
    fn mark(&mut self, clean: bool) -> Result<()> {
        let end = self.reach.point.offset + BATCH_HEADER as u64;
        // Without room there is no mark: the log opens as after a crash, and nothing is lost.
        if end > self.shared.options.segment_bytes {
            return Ok(());
        }
        match self.shared.space.ensure(end) {
            Err(StoreError::Full { .. }) => return Ok(()),
            ensured => ensured?,
        }
        self.builder.clear();
        let place = self.place(self.reach.time);
        self.write(&place, clean)?;
        self.unproven = false;
        Ok(())
    }

    fn place(&self, time: u64) -> Place {
        Place {
            segment: self.header.id,
            salt: self.header.salt,
            offset: self.reach.point.offset,
            number: self.reach.point.number,
            previous: self.reach.point.previous,
            position: self.reach.position + 1,
            time,
        }
    }

    /// Writes and syncs the built batch, then shows it.
    fn write(&mut self, place: &Place, clean: bool) -> Result<()> {
        let (bytes, hash) = self.builder.finish(place, clean);
        let len = bytes.len() as u64;
        let path = || segment::segment_path(&self.shared.path, place.segment);
        self.file.write_at(bytes, place.offset).map_err(|e| StoreError::io(path(), "writing a batch", e))?;
        self.file.datasync().map_err(|e| StoreError::io(path(), "syncing a batch", e))?;
        self.reach.last_batch = place.offset;
        self.reach.point = ScanPoint { offset: place.offset + len, number: place.number + 1, previous: hash };
        self.reach.position += u64::from(self.builder.positions());
        self.reach.time = place.time;
        {
            // Together: a reader that finds a head may read up to it, and a checkpoint's heads are never older than its reach.
            let mut heads = self.shared.heads.lock();
            self.shared.reach.lock().clone_from(&self.reach);
            heads.publish();
        }
        if self.builder.positions() > 0 {
            // After the sync, after the heads, and before anybody is told.
            let standing = Standing { segment: self.header.id, point: self.reach.point };
            self.shared.ring.push(self.builder.bytes(), self.reach.position, standing, &self.shared.pool);
        }
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.bytes.fetch_add(len, Ordering::Relaxed);
        self.shared.space.used(self.reach.point.offset);
        self.since_checkpoint += len;
        if self.since_checkpoint >= self.shared.options.checkpoint_bytes {
            self.since_checkpoint = 0;
            self.shared.space.ask(Job::Checkpoint);
        }
        Ok(())
    }

    /// Goes on in a new segment, which names the end of this one. Everything here is durable.
    fn roll(&mut self) -> Result<()> {
        let (door, store) = (&*self.shared.door, &self.shared.path);
        let id = self.header.id + 1;
        let prepared = self.shared.space.take_next(id)?;
        let seal = Seal { end: self.reach.point.offset, hash: self.reach.point.previous };
        let header = SegmentHeader {
            origin: Origin::Roll,
            id,
            salt: super::random_u64(door),
            generation: 0,
            predecessor: self.header.id,
            predecessor_end: seal.end,
            predecessor_hash: seal.hash,
            first_batch: self.reach.point.number,
            first_position: self.reach.position + 1,
            created: self.reach.time,
            ..self.header
        };
        segment::start(door, store, &*prepared, &header)?;
        (self.file, _) = segment::open(door, store, id, Mode::Write)?;
        self.header = header;
        self.reach.segment = id;
        self.reach.salt = header.salt;
        self.reach.last_batch = 0;
        self.reach.point = ScanPoint::start_of(&header);
        self.shared.chain.write().roll(seal, Segment { header, seal: None });
        self.shared.reach.lock().clone_from(&self.reach);
        self.shared.space.switch(door, store, id)
    }
}

fn unit_bytes(pending: &Pending, number: usize) -> &[u8] {
    let start = number.checked_sub(1).and_then(|before| pending.ends.get(before)).copied().unwrap_or(0);
    let end = pending.ends.get(number).copied().unwrap_or(start);
    pending.bytes.get(start..end).unwrap_or_default()
}

/// How many units from `first` on make the next batch, and their bytes: at least one unit, then as many as fit `room`.
fn gather(pending: &Pending, first: usize, room: usize) -> (usize, usize) {
    let start = first.checked_sub(1).and_then(|before| pending.ends.get(before)).copied().unwrap_or(0);
    let rest = pending.ends.get(first..).unwrap_or_default();
    let fitting = rest.iter().take_while(|&&end| end - start <= room.min(BATCH_BYTES)).count();
    let count = fitting.max(1);
    let end = rest.get(count - 1).copied().unwrap_or(start);
    (count, end - start)
}

fn skip_key(unit: &UnitView<'_>) -> u64 {
    entity_hash(unit.id) ^ entity_hash(unit.kind).rotate_left(1)
}
