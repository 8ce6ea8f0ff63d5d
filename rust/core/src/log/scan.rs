//! Walks the batches of one segment in order, verifying each, and says where the valid ones end.
//!
//! Promises that a batch it hands out is the one that followed the one before when it was written: number, chain hash
//! and body hash match. It decides nothing about what an invalid batch means; that is recovery's.

use super::format::{
    ALIGN, BATCH_HEADER, BATCH_MAGIC, BatchHeader, DATA_START, Malformed, SegmentHeader, batch_hash, body_hash,
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
            stopped: Malformed("there is no batch here"),
        }
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
        let salt = self.salt;
        let bytes = self.bytes(offset, BATCH_HEADER + body_len)?;
        let (raw_header, body) = bytes.split_at_checked(BATCH_HEADER).unwrap_or_default();
        let Ok(raw_header) = <&[u8; BATCH_HEADER]>::try_from(raw_header) else { return Ok(None) };
        let hash = batch_hash(raw_header, salt);
        if body_hash(body, salt) != header.body_hash {
            self.stopped = Malformed("the checksum of the batch does not match");
            return Ok(None);
        }
        self.point = ScanPoint { offset: end, number: header.number + 1, previous: hash };
        let start = usize::try_from(offset - self.buf_start).unwrap_or(usize::MAX);
        let body = self.buf.get(start + BATCH_HEADER..start + BATCH_HEADER + body_len).unwrap_or_default();
        Ok(Some(ScannedBatch { header, offset, body, hash }))
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
        let held = self.buf_start..self.buf_start + self.buf.len() as u64;
        if offset < held.start || offset + len as u64 > held.end {
            let ahead = usize::try_from(self.limit - offset).unwrap_or(READ_AHEAD).min(READ_AHEAD);
            self.buf.clear();
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
