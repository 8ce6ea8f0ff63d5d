//! What stands at the start of a segment and of a batch.

use super::{FORMAT_VERSION, Malformed, bytes_at, put, u16_at, u32_at, u64_at};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a segment header.
pub const SEGMENT_HEADER: usize = 128;
const SEGMENT_MAGIC: [u8; 8] = *b"EGOSEG\0\0";
/// Bytes of a batch header.
pub const BATCH_HEADER: usize = 80;
/// Where the length of the body stands in a batch header.
pub const BATCH_BODY_LEN: usize = 16;
/// First bytes of a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"EGOB";

/// Batch flag: no units; it proves what is before it durable.
pub const FLAG_MARK: u32 = 1;
/// Batch flag: a mark written by an orderly close.
pub const FLAG_CLEAN: u32 = 2;

/// Why a segment was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The first segment of a store.
    First,
    /// Its predecessor was full.
    Roll,
    /// Its predecessor was not closed cleanly.
    Recovery,
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store's id.
    pub store: [u8; 16],
    /// Shards of the store.
    pub shards: u16,
    /// Why it was begun.
    pub origin: Origin,
    /// The segment's id, from 1, one higher than its predecessor's.
    pub id: u32,
    /// How often it has been rewritten.
    pub generation: u32,
    /// Mixed into every checksum of the segment, so that bytes from elsewhere never pass.
    pub salt: u64,
    /// The predecessor's id, 0 for the first.
    pub predecessor: u32,
    /// Where the predecessor ends.
    pub predecessor_end: u64,
    /// Hash of the predecessor's last batch: the hash that the first batch here continues.
    pub predecessor_hash: u64,
    /// Number of the first batch here.
    pub first_batch: u64,
    /// Position of the first event here.
    pub first_position: u64,
    /// When it was begun, nanoseconds since the Unix epoch.
    pub created: u64,
}

impl SegmentHeader {
    /// The bytes of one copy.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0u8; SEGMENT_HEADER];
        put(&mut out, 0, &SEGMENT_MAGIC);
        put(&mut out, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 24, &self.shards.to_le_bytes());
        let origin = match self.origin {
            Origin::First => 0u8,
            Origin::Roll => 1,
            Origin::Recovery => 2,
        };
        put(&mut out, 26, &[origin]);
        put(&mut out, 28, &self.id.to_le_bytes());
        put(&mut out, 32, &self.store);
        put(&mut out, 48, &self.salt.to_le_bytes());
        put(&mut out, 56, &self.generation.to_le_bytes());
        put(&mut out, 60, &self.predecessor.to_le_bytes());
        put(&mut out, 64, &self.predecessor_end.to_le_bytes());
        put(&mut out, 72, &self.predecessor_hash.to_le_bytes());
        put(&mut out, 80, &self.first_batch.to_le_bytes());
        put(&mut out, 88, &self.first_position.to_le_bytes());
        put(&mut out, 96, &self.created.to_le_bytes());
        let crc = crc32c::crc32c(out.get(..124).unwrap_or_default());
        put(&mut out, 124, &crc.to_le_bytes());
        out
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(buf: &[u8]) -> Result<Self, Malformed> {
        let buf = buf.get(..SEGMENT_HEADER).ok_or(Malformed("the segment header is cut short"))?;
        if buf.get(..8) != Some(&SEGMENT_MAGIC[..]) {
            return Err(Malformed("this is not a segment of an ego log"));
        }
        if u32_at(buf, 124) != crc32c::crc32c(buf.get(..124).unwrap_or_default()) {
            return Err(Malformed("the checksum of the segment header does not match"));
        }
        if u32_at(buf, 8) != FORMAT_VERSION {
            return Err(Malformed("the segment has a format version that this build does not read"));
        }
        if u32_at(buf, 16) != 0 || u32_at(buf, 20) != 0 {
            return Err(Malformed("the segment uses a feature that this build does not know"));
        }
        let origin = match buf.get(26) {
            Some(0) => Origin::First,
            Some(1) => Origin::Roll,
            Some(2) => Origin::Recovery,
            _ => return Err(Malformed("the segment header holds an impossible value")),
        };
        Ok(Self {
            store: bytes_at(buf, 32).unwrap_or_default(),
            shards: u16_at(buf, 24),
            origin,
            id: u32_at(buf, 28),
            generation: u32_at(buf, 56),
            salt: u64_at(buf, 48),
            predecessor: u32_at(buf, 60),
            predecessor_end: u64_at(buf, 64),
            predecessor_hash: u64_at(buf, 72),
            first_batch: u64_at(buf, 80),
            first_position: u64_at(buf, 88),
            created: u64_at(buf, 96),
        })
    }
}

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Counts the batches of a store, from 1.
    pub number: u64,
    /// Bytes after the header, padding included.
    pub body_len: u32,
    /// [`FLAG_MARK`], [`FLAG_CLEAN`].
    pub flags: u32,
    /// Units in the body.
    pub units: u32,
    /// Events and states in the body.
    pub positions: u32,
    /// Position of the first event or state; where there is none, of the next one.
    pub first_position: u64,
    /// Offset in this segment up to which everything was known durable when this was written.
    pub durable_to: u64,
    /// Hash of the batch before.
    pub previous: u64,
    /// When it was committed, nanoseconds since the Unix epoch; never lower than the batch before.
    pub time: u64,
    /// Salted hash of the body.
    pub body_hash: u64,
    /// The segment's id.
    pub segment: u32,
}

impl BatchHeader {
    /// The bytes of the header in a segment with `salt`.
    #[must_use]
    pub fn encode(&self, salt: u64) -> [u8; BATCH_HEADER] {
        let mut out = [0u8; BATCH_HEADER];
        put(&mut out, 0, &BATCH_MAGIC);
        put(&mut out, 8, &self.number.to_le_bytes());
        put(&mut out, BATCH_BODY_LEN, &self.body_len.to_le_bytes());
        put(&mut out, 20, &self.flags.to_le_bytes());
        put(&mut out, 24, &self.units.to_le_bytes());
        put(&mut out, 28, &self.positions.to_le_bytes());
        put(&mut out, 32, &self.first_position.to_le_bytes());
        put(&mut out, 40, &self.durable_to.to_le_bytes());
        put(&mut out, 48, &self.previous.to_le_bytes());
        put(&mut out, 56, &self.time.to_le_bytes());
        put(&mut out, 64, &self.body_hash.to_le_bytes());
        put(&mut out, 72, &self.segment.to_le_bytes());
        let crc = header_crc(&out, salt);
        put(&mut out, 4, &crc.to_le_bytes());
        out
    }

    /// Reads a header written into a segment with `salt`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(buf: &[u8], salt: u64) -> Result<Self, Malformed> {
        let buf = buf.get(..BATCH_HEADER).ok_or(Malformed("the batch header is cut short"))?;
        if buf.get(..4) != Some(&BATCH_MAGIC[..]) {
            return Err(Malformed("there is no batch here"));
        }
        if u32_at(buf, 4) != header_crc(buf, salt) {
            return Err(Malformed("the checksum of the batch header does not match"));
        }
        Ok(Self {
            number: u64_at(buf, 8),
            body_len: u32_at(buf, BATCH_BODY_LEN),
            flags: u32_at(buf, 20),
            units: u32_at(buf, 24),
            positions: u32_at(buf, 28),
            first_position: u64_at(buf, 32),
            durable_to: u64_at(buf, 40),
            previous: u64_at(buf, 48),
            time: u64_at(buf, 56),
            body_hash: u64_at(buf, 64),
            segment: u32_at(buf, 72),
        })
    }

    /// Whether it is a mark.
    #[must_use]
    pub fn is_mark(&self) -> bool {
        self.flags & FLAG_MARK != 0
    }

    /// Whether it is the mark of an orderly close.
    #[must_use]
    pub fn is_clean_close(&self) -> bool {
        self.flags & (FLAG_MARK | FLAG_CLEAN) == FLAG_MARK | FLAG_CLEAN
    }
}

fn header_crc(header: &[u8], salt: u64) -> u32 {
    let salted = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(salted, header.get(8..BATCH_HEADER).unwrap_or_default())
}

/// The salted hash of a batch's body.
#[must_use]
pub fn body_hash(body: &[u8], salt: u64) -> u64 {
    xxh3_64_with_seed(body, salt)
}

/// The hash of a batch, by which the next one names it. The header holds the hash of the body.
#[must_use]
pub fn batch_hash(header: &[u8; BATCH_HEADER], salt: u64) -> u64 {
    xxh3_64_with_seed(header, salt)
}
