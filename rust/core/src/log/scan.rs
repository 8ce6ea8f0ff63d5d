//! Walks the batches of one segment in order, verifying each, and says where the valid ones end.
//!
//! Promises that a batch it hands out is the one that followed the one before when it was written: number, chain hash
//! and body hash match. It decides nothing about what an invalid batch means; that is recovery's.

use super::format::{
    ALIGN, BATCH_BODY_LEN, BATCH_HEADER, BATCH_MAGIC, BatchHeader, DATA_START, Malformed, SegmentHeader, batch_hash,
    body_hash, u32_at,
};
use crate::error::{Result, StoreError};
use crate::io::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read ahead.
const READ_AHEAD: usize = 1 << 20;

/// A verified batch, borrowed from the scanner's buffer.
#[derive(Debug)]
pub struct ScannedBatch<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// Where it starts in the segment.
    pub offset: u64,
    /// Its body.
    pub body: &'a [u8],
    /// Its hash, by which the next batch names it.
    pub hash: u64,
    /// Where the body starts in the scanner's buffer.
    pub held_at: usize,
}

/// A verified batch in the scanner's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its header.
    pub header: BatchHeader,
    offset: u64,
    hash: u64,
}

impl ScannedBatch<'_> {
    /// Where the body starts in the segment.
    #[must_use]
    pub fn body_offset(&self) -> u64 {
        self.offset + BATCH_HEADER as u64
    }
}

/// Where a scan stands: everything before `offset` is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanPoint {
    /// Where the next batch starts.
    pub offset: u64,
    /// Its number.
    pub number: u64,
    /// Hash of the batch before it.
    pub previous: u64,
}

impl ScanPoint {
    /// The start of a segment.
    #[must_use]
    pub fn start_of(header: &SegmentHeader) -> Self {
        Self { offset: DATA_START, number: header.first_batch, previous: header.predecessor_hash }
    }
}

/// Walks the batches of one segment.
#[derive(Debug)]
pub struct Scanner {
    file: Arc<dyn File>,
    path: PathBuf,
    segment: u32,
    salt: u64,
    point: ScanPoint,
    limit: u64,
    buf: Vec<u8>,
    buf_start: u64,
    ahead: usize,
    /// Why the last [`next`](Self::next) found no batch.
    pub stopped: Malformed,
}

impl Scanner {
    /// A scan from `point` that looks at nothing at or after `limit`.
    #[must_use]
    pub fn new(file: Arc<dyn File>, path: &Path, header: &SegmentHeader, point: ScanPoint, limit: u64) -> Self {
        Self {
            file,
            path: path.to_path_buf(),
            segment: header.id,
            salt: header.salt,
            point,
            limit,
            buf: Vec::new(),
            buf_start: 0,
            ahead: READ_AHEAD,
            stopped: Malformed("there is no batch here"),
        }
    }

    /// Reads so many bytes at once.
    #[must_use]
    pub fn ahead_by(mut self, bytes: usize) -> Self {
        self.ahead = bytes;
        self
    }

    /// The segment's id.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Moves the limit on.
    pub fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Whether the next batch lies in the buffer whole.
    #[must_use]
    pub fn is_next_held(&self) -> bool {
        let at = self.point.offset.checked_sub(self.buf_start).and_then(|at| usize::try_from(at).ok());
        let held = at.and_then(|at| self.buf.get(at..)).unwrap_or_default();
        held.len() >= BATCH_HEADER && held.len() - BATCH_HEADER >= u32_at(held, BATCH_BODY_LEN) as usize
    }

    /// Gives it a buffer to read into, where it has none.
    pub fn lend(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.buf.capacity() == 0 {
            self.buf = buffer();
            self.forget();
        }
    }

    /// Takes the buffer away, with the batches found in it. What it holds beyond them is read again.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let buffer = std::mem::take(&mut self.buf);
        self.forget();
        buffer
    }

    /// Says that nothing is held: nothing that is wanted lies before the buffer ends.
    fn forget(&mut self) {
        self.buf_start = u64::MAX;
    }

    /// Passes over batches by their headers alone; returns the first header that is not to be passed, or none at the limit.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where a header is not valid before the limit.
    pub fn skip_while(&mut self, mut skips: impl FnMut(&BatchHeader) -> bool) -> Result<Option<BatchHeader>> {
        while self.point.offset < self.limit {
            let offset = self.point.offset;
            let Some(header) = self.next_header()? else { return Err(self.damage()) };
            if !skips(&header) {
                return Ok(Some(header));
            }
            let salt = self.salt;
            let raw =
                <&[u8; BATCH_HEADER]>::try_from(self.bytes(offset, BATCH_HEADER)?).map_or(0, |h| batch_hash(h, salt));
            let end = offset + BATCH_HEADER as u64 + u64::from(header.body_len);
            self.point = ScanPoint { offset: end, number: header.number + 1, previous: raw };
        }
        Ok(None)
    }

    /// The error for a batch that is not there although it should be.
    #[must_use]
    pub fn damage(&self) -> StoreError {
        let (path, offset) = (self.path.clone(), self.point.offset);
        StoreError::Corrupt { path, offset, detail: self.stopped.0.to_owned() }
    }

    /// Where the scan stands.
    #[must_use]
    pub fn point(&self) -> ScanPoint {
        self.point
    }

    /// The next batch; `None` where there is no valid one.
    ///
    /// # Errors
    /// `Io`.
    pub fn next_batch(&mut self) -> Result<Option<ScannedBatch<'_>>> {
        Ok(self.step()?.map(|found| self.shown(found)))
    }

    /// Moves behind the next batch; `None` where there is no valid one.
    ///
    /// # Errors
    /// `Io`.
    pub fn step(&mut self) -> Result<Option<Found>> {
        let offset = self.point.offset;
        let Some(header) = self.next_header()? else { return Ok(None) };
        let body_len = header.body_len as usize;
        let salt = self.salt;
        let bytes = self.bytes(offset, BATCH_HEADER + body_len)?;
        let (raw_header, body) = bytes.split_at_checked(BATCH_HEADER).unwrap_or_default();
        let Ok(raw_header) = <&[u8; BATCH_HEADER]>::try_from(raw_header) else { return Ok(None) };
        let hash = batch_hash(raw_header, salt);
        if body_hash(body, salt) != header.body_hash {
            self.stopped = Malformed("the checksum of the batch does not match");
            return Ok(None);
        }
        let end = offset + (BATCH_HEADER + body_len) as u64;
        self.point = ScanPoint { offset: end, number: header.number + 1, previous: hash };
        Ok(Some(Found { header, offset, hash }))
    }

    /// What the last [`step`](Self::step) found.
    #[must_use]
    pub fn shown(&self, found: Found) -> ScannedBatch<'_> {
        let Found { header, offset, hash } = found;
        let start = usize::try_from(offset - self.buf_start).unwrap_or(usize::MAX);
        let held_at = start.saturating_add(BATCH_HEADER);
        let body = self.buf.get(held_at..held_at.saturating_add(header.body_len as usize)).unwrap_or_default();
        ScannedBatch { header, offset, body, hash, held_at }
    }

    /// The header of the next batch, if it is the one that belongs here.
    fn next_header(&mut self) -> Result<Option<BatchHeader>> {
        let offset = self.point.offset;
        let Some(header) = self.header_at(offset)? else { return Ok(None) };
        let body_len = header.body_len as usize;
        let end = offset + BATCH_HEADER as u64 + body_len as u64;
        if header.segment != self.segment || header.number != self.point.number {
            self.stopped = Malformed("the batch is not the one that belongs here");
            return Ok(None);
        }
        if header.previous != self.point.previous {
            self.stopped = Malformed("the batch does not continue the one before it");
            return Ok(None);
        }
        if end > self.limit || !body_len.is_multiple_of(ALIGN) {
            self.stopped = Malformed("the batch is longer than its segment");
            return Ok(None);
        }
        Ok(Some(header))
    }

    /// Looks for the header of a later batch behind the point where the scan stopped: evidence that bytes which a sync
    /// covered have been lost. The salt in its checksum keeps a payload from posing as one.
    ///
    /// # Errors
    /// `Io`.
    pub fn later_batch(&mut self) -> Result<Option<u64>> {
        let mut at = self.point.offset + ALIGN as u64;
        while at + (BATCH_HEADER as u64) <= self.limit {
            let len = usize::try_from(self.limit - at).unwrap_or(READ_AHEAD).min(READ_AHEAD);
            let bytes = self.bytes(at, len)?;
            let found = bytes.chunks_exact(ALIGN).position(|word| word.starts_with(&BATCH_MAGIC));
            let Some(words) = found else {
                at += (len - len % ALIGN).max(ALIGN) as u64;
                continue;
            };
            at += (words * ALIGN) as u64;
            if self.header_at(at)?.is_some_and(|h| h.segment == self.segment && h.number > self.point.number) {
                return Ok(Some(at));
            }
            at += ALIGN as u64;
        }
        Ok(None)
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<BatchHeader>> {
        if offset + BATCH_HEADER as u64 > self.limit {
            self.stopped = Malformed("the segment ends here");
            return Ok(None);
        }
        let salt = self.salt;
        match BatchHeader::decode(self.bytes(offset, BATCH_HEADER)?, salt) {
            Ok(header) => Ok(Some(header)),
            Err(malformed) => {
                self.stopped = malformed;
                Ok(None)
            }
        }
    }

    /// `len` bytes from `offset`, which lie before the limit.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let held_to = self.buf_start.saturating_add(self.buf.len() as u64);
        if offset < self.buf_start || offset + len as u64 > held_to {
            let ahead = usize::try_from(self.limit - offset).unwrap_or(self.ahead).min(self.ahead);
            self.buf.resize(len.max(ahead), 0);
            self.buf_start = offset;
            if let Err(error) = self.file.read_at(&mut self.buf, offset) {
                self.buf.clear();
                return Err(StoreError::io(&self.path, "reading a segment", error));
            }
        }
        let start = usize::try_from(offset - self.buf_start).unwrap_or(usize::MAX);
        Ok(self.buf.get(start..start + len).unwrap_or_default())
    }
}
