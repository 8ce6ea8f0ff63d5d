//! Walks everything that is durable, batch by batch, from segment to segment, and goes on where it stands when there is more.
//!
//! No segment is read twice: where a walk starts inside of one that it has not walked, it passes over what is before by the
//! headers of the batches alone.

use super::Shared;
use super::chain;
use super::format::{BatchHeader, Malformed, pick};
use super::scan::{ScanPoint, ScannedBatch, Scanner};
use super::segment;
use crate::error::{Result, StoreError};
use crate::feed::{Bytes, Chunk, Filter};
use crate::journal::Wait;
use std::sync::Arc;

/// Bytes passed after which a walk says how far it has come, even if nothing matched.
const MOST_BYTES: usize = 4 << 20;

/// Between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) segment: u32,
    pub(super) point: ScanPoint,
}

#[derive(Debug)]
pub(super) struct Walk {
    /// Everything up to here was passed.
    position: u64,
    /// Where it goes on, if that is known and no scanner knows better.
    standing: Option<Standing>,
    scanner: Option<Scanner>,
}

impl Walk {
    /// A walk over what follows `position`; `standing` is where that is, if the caller knows.
    pub(super) fn after(position: u64, standing: Option<Standing>) -> Self {
        Self { position, standing, scanner: None }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch with something behind the position; `None` at the durable end.
    ///
    /// # Errors
    /// `Io`, `Corrupt`. The walk stands where it stood.
    pub(super) fn next_batch(&mut self, shared: &Shared) -> Result<Option<ScannedBatch<'_>>> {
        if !self.is_next_held() && !self.enter(shared)? {
            return Ok(None);
        }
        let Some(scanner) = &mut self.scanner else { return Ok(None) };
        let Some(found) = scanner.step()? else { return Err(scanner.damage()) };
        let header = &found.header;
        self.position = self.position.max((header.first_position + u64::from(header.positions)).saturating_sub(1));
        Ok(Some(scanner.shown(found)))
    }

    /// What `filter` lets through of one stretch of a segment, or how far there is nothing; `None` at the durable end.
    ///
    /// # Errors
    /// `Io`, `Corrupt`. The walk stands where it stood.
    pub(super) fn chunk(&mut self, shared: &Shared, filter: &Filter) -> Result<Option<Chunk>> {
        let (after, start) = (self.position, self.place());
        let chunk = self.stretch(shared, filter, after);
        if chunk.is_err() {
            // What was read is not kept, so that the next time it is read again.
            *self = Self::after(after, start);
        }
        chunk
    }

    fn stretch(&mut self, shared: &Shared, filter: &Filter, after: u64) -> Result<Option<Chunk>> {
        let (mut entries, mut passed) = (Vec::new(), 0);
        loop {
            if !self.is_next_held() {
                let is_enough = !entries.is_empty() || (passed >= MOST_BYTES && self.position > after);
                if is_enough || !self.enter(shared)? {
                    break;
                }
                if let Some(scanner) = &mut self.scanner {
                    scanner.lend(|| shared.pool.take(shared.options.feed_chunk_bytes as usize));
                }
            }
            let Some(batch) = self.next_batch(shared)? else { break };
            passed += batch.body.len();
            let picked = pick(batch.body, batch.held_at, filter, after, &mut entries);
            let offset = batch.offset;
            picked.map_err(|malformed| self.corrupt(shared, offset, malformed))?;
        }
        let upto = self.position;
        let buffer = self.scanner.as_mut().map(Scanner::take_buffer).unwrap_or_default();
        let bytes = Bytes::new(buffer, &shared.pool);
        Ok(match (entries.is_empty(), upto > after) {
            (false, _) => Some(Chunk::new(Arc::new(bytes), entries, upto)),
            (true, true) => Some(Chunk::nothing(upto)),
            (true, false) => None,
        })
    }

    fn corrupt(&self, shared: &Shared, offset: u64, malformed: Malformed) -> StoreError {
        let path = segment::segment_path(&shared.path, self.place().map_or(0, |place| place.segment));
        StoreError::Corrupt { path, offset, detail: malformed.0.to_owned() }
    }

    fn place(&self) -> Option<Standing> {
        let scanned = self.scanner.as_ref().map(|s| Standing { segment: s.segment(), point: s.point() });
        scanned.or(self.standing)
    }

    fn is_next_held(&self) -> bool {
        self.scanner.as_ref().is_some_and(Scanner::is_next_held)
    }

    /// Sees to it that a scanner stands before a durable batch; `false` at the durable end.
    fn enter(&mut self, shared: &Shared) -> Result<bool> {
        loop {
            if self.position >= shared.reach.lock().position {
                return Ok(false);
            }
            let mut scanner = match self.scanner.take() {
                Some(scanner) => scanner,
                None => self.open(shared)?,
            };
            let segment = scanner.segment();
            let (end, is_sealed) = durable_end(shared, segment);
            scanner.extend(end);
            let at = scanner.point();
            if at.offset >= end && is_sealed {
                let next = shared.chain.read().get(segment + 1).map(|s| ScanPoint::start_of(&s.header));
                self.standing = next.map(|point| Standing { segment: segment + 1, point });
                continue;
            }
            self.standing = None;
            self.scanner = Some(scanner);
            return Ok(at.offset < end);
        }
    }

    fn open(&self, shared: &Shared) -> Result<Scanner> {
        if let Some(Standing { segment, point }) = self.standing {
            return scanner(shared, segment, Some(point));
        }
        let segment = shared.chain.read().holding(self.position.saturating_add(1)).map_or(1, |s| s.header.id);
        let mut scanner = scanner(shared, segment, None)?;
        let after = self.position.saturating_add(1);
        scanner.skip_while(|header| header.first_position + u64::from(header.positions) <= after)?;
        Ok(scanner)
    }
}

/// Where what is durable of a segment ends by now, and whether nothing will follow it there.
fn durable_end(shared: &Shared, segment: u32) -> (u64, bool) {
    // One look at the reach: it is of the next segment at once after a roll, and the chain knows of that roll before.
    {
        let reach = shared.reach.lock();
        if reach.segment == segment {
            return (reach.point.offset, false);
        }
    }
    let seal = shared.chain.read().get(segment).and_then(|s| s.seal);
    (seal.map_or(0, |seal| seal.end), true)
}

/// A scan of what is durable of a segment, from its start or a point.
fn scanner(shared: &Shared, segment: u32, point: Option<ScanPoint>) -> Result<Scanner> {
    let file = chain::file(&shared.chain, &*shared.door, &shared.path, segment, Wait::AsLongAsItTakes)?;
    let header = shared.chain.read().get(segment).ok_or(StoreError::Closed)?.header;
    let (limit, _) = durable_end(shared, segment);
    let path = segment::segment_path(&shared.path, segment);
    let point = point.unwrap_or_else(|| ScanPoint::start_of(&header));
    Ok(Scanner::new(file, &path, &header, point, limit).ahead_by(shared.options.feed_chunk_bytes as usize))
}

/// The last position that was committed before `time`.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn position_at(shared: &Shared, time: u64) -> Result<u64> {
    let (mut segment, mut before) = {
        let reach = shared.reach.lock();
        (reach.segment, reach.position)
    };
    let is_older = |header: &BatchHeader| header.time < time;
    // Times of headers of segments do not bound those of their batches: one that a recovery began holds older ones.
    while shared.chain.read().get(segment).is_some() {
        let mut scanner = scanner(shared, segment, None)?;
        let start = scanner.point();
        let found = scanner.skip_while(is_older)?;
        if let Some(header) = found {
            before = header.first_position.saturating_sub(1);
        }
        if scanner.point() != start {
            break;
        }
        segment -= 1;
    }
    Ok(before)
}
