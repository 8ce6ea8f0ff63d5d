//! The bytes on disk: sizes, offsets and the encoding of every header. The tables are in `docs/log-format.md`.
//!
//! Everything is little-endian. Decoding never trusts a length: each is checked against what is there before it is
//! used, and nothing here allocates.

use super::crc::crc32c;
use crate::journal::Unit;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Format version written and read. 0 is the version under construction: later builds refuse it.
pub const FORMAT_VERSION: u32 = 0;

/// Everything starts at a multiple of this.
pub const ALIGN: usize = 8;
/// A segment's header is kept twice, each in a block of this size, so that one torn block cannot take both.
pub const HEADER_BLOCK: u64 = 4096;
/// Where the first batch of a segment starts.
pub const DATA_START: u64 = 2 * HEADER_BLOCK;

/// Bytes of a segment header.
pub const SEGMENT_HEADER: usize = 128;
const SEGMENT_MAGIC: [u8; 8] = *b"EGOSEG\0\0";
/// Bytes of a batch header.
pub const BATCH_HEADER: usize = 80;
/// First bytes of a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"EGOB";
/// Bytes of a unit header before kind and id.
pub const UNIT_HEADER: usize = 64;
/// Bytes of a record header before name, extensions, metadata and payload.
pub const RECORD_HEADER: usize = 24;

/// Batch flag: no units; it proves what is before it durable.
pub const FLAG_MARK: u32 = 1;
/// Batch flag: a mark written by an orderly close.
pub const FLAG_CLEAN: u32 = 2;

/// Record kind: an event.
pub const RECORD_EVENT: u8 = 1;
/// Record flag: a reader that does not know the record kind may pass over it.
pub const RECORD_SKIPPABLE: u8 = 1;

/// Why bytes could not be read as what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// `n` rounded up to the next multiple of [`ALIGN`].
#[must_use]
pub const fn padded(n: usize) -> usize {
    n.div_ceil(ALIGN) * ALIGN
}

fn bytes_at<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Reads a `u16` at `at`; 0 where the buffer ends before (callers check lengths first).
#[must_use]
pub fn u16_at(buf: &[u8], at: usize) -> u16 {
    bytes_at(buf, at).map_or(0, u16::from_le_bytes)
}

/// Reads a `u32` at `at`; 0 where the buffer ends before (callers check lengths first).
#[must_use]
pub fn u32_at(buf: &[u8], at: usize) -> u32 {
    bytes_at(buf, at).map_or(0, u32::from_le_bytes)
}

/// Reads a `u64` at `at`; 0 where the buffer ends before (callers check lengths first).
#[must_use]
pub fn u64_at(buf: &[u8], at: usize) -> u64 {
    bytes_at(buf, at).map_or(0, u64::from_le_bytes)
}

/// Overwrites bytes at `at`; nothing happens where the buffer ends before (callers check lengths first).
pub fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(target) = buf.get_mut(at..at + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// Where a unit starts. Segment ids start at 1, so the zero address stands for "nowhere".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Address {
    /// The segment's id.
    pub segment: u32,
    /// Bytes from the start of the segment.
    pub offset: u32,
}

impl Address {
    /// The address of nothing.
    pub const NONE: Self = Self { segment: 0, offset: 0 };
}

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
    /// Events in the body.
    pub events: u32,
    /// Position of the first event; in a mark, of the next one.
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
        put(&mut out, 16, &self.body_len.to_le_bytes());
        put(&mut out, 20, &self.flags.to_le_bytes());
        put(&mut out, 24, &self.units.to_le_bytes());
        put(&mut out, 28, &self.events.to_le_bytes());
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
            body_len: u32_at(buf, 16),
            flags: u32_at(buf, 20),
            units: u32_at(buf, 24),
            events: u32_at(buf, 28),
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

/// Bytes that a unit takes.
#[must_use]
pub fn unit_len(unit: &Unit<'_>) -> usize {
    let names = unit.entity.kind.len() + unit.entity.id.len();
    let records: usize = unit.records.iter().map(|r| padded(RECORD_HEADER + r.name.len() + r.payload.len())).sum();
    UNIT_HEADER + padded(names) + records
}

/// Appends a unit to `out`, with everything but what the committer decides (position, time, previous unit, checksums).
///
/// Lengths have been checked by the caller: names take at most [`MAX_NAME_BYTES`], the unit fits a `u32`.
pub fn encode_unit(unit: &Unit<'_>, len: usize, shard: u16, out: &mut Vec<u8>) {
    let (kind, id) = (unit.entity.kind.as_bytes(), unit.entity.id.as_bytes());
    let start = out.len();
    out.reserve(len);
    let mut header = [0u8; UNIT_HEADER];
    put(&mut header, 0, &(len as u32).to_le_bytes());
    put(&mut header, 24, &unit.first_revision.to_le_bytes());
    put(&mut header, 56, &(unit.records.len() as u32).to_le_bytes());
    put(&mut header, 60, &shard.to_le_bytes());
    put(&mut header, 62, &[kind.len() as u8, id.len() as u8]);
    out.extend_from_slice(&header);
    out.extend_from_slice(kind);
    out.extend_from_slice(id);
    out.resize(start + UNIT_HEADER + padded(kind.len() + id.len()), 0);
    for record in unit.records {
        let at = out.len();
        let len = padded(RECORD_HEADER + record.name.len() + record.payload.len());
        let mut header = [0u8; RECORD_HEADER];
        put(&mut header, 0, &(len as u32).to_le_bytes());
        put(&mut header, 8, &[RECORD_EVENT, 0, record.name.len() as u8]);
        put(&mut header, 12, &record.version.to_le_bytes());
        put(&mut header, 16, &(record.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(record.name.as_bytes());
        out.extend_from_slice(record.payload);
        out.resize(at + len, 0);
    }
}

/// What the committer adds to an encoded unit.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// Position of the first event.
    pub position: u64,
    /// How many events of the shard stand before.
    pub shard_position: u64,
    /// The entity's unit before this one.
    pub previous: Address,
    /// When it is committed.
    pub time: u64,
}

/// Completes an encoded unit in place: the committer's fields, then every checksum.
pub fn complete_unit(unit: &mut [u8], committed: &Committed) {
    put(unit, 16, &committed.position.to_le_bytes());
    put(unit, 32, &committed.shard_position.to_le_bytes());
    put(unit, 40, &committed.previous.segment.to_le_bytes());
    put(unit, 44, &committed.previous.offset.to_le_bytes());
    put(unit, 48, &committed.time.to_le_bytes());
    let head = unit_head_len(unit);
    let crc = crc32c(unit.get(8..head).unwrap_or_default());
    put(unit, 4, &crc.to_le_bytes());
    let mut at = head;
    while at < unit.len() {
        let len = (u32_at(unit, at) as usize).max(RECORD_HEADER);
        let crc = crc32c(unit.get(at + 8..at + len).unwrap_or_default());
        put(unit, at + 4, &crc.to_le_bytes());
        at += len;
    }
}

/// Bytes of a unit's header, kind, id and padding.
fn unit_head_len(unit: &[u8]) -> usize {
    let names = unit.get(62..64).map_or(0, |n| n.iter().map(|&len| len as usize).sum());
    UNIT_HEADER + padded(names)
}

/// Checks the checksum of a unit's header; returns its length with kind, id and padding.
#[inline]
fn verify_unit_head(buf: &[u8]) -> Result<usize, Malformed> {
    if buf.len() < UNIT_HEADER {
        return Err(Malformed("the unit header is cut short"));
    }
    let head = unit_head_len(buf);
    let covered = buf.get(8..head).ok_or(Malformed("the unit header is cut short"))?;
    if u32_at(buf, 4) != crc32c(covered) {
        return Err(Malformed("the checksum of the unit header does not match"));
    }
    Ok(head)
}

/// A unit in a buffer, its header verified.
#[derive(Debug, Clone, Copy)]
pub struct UnitView<'a> {
    bytes: &'a [u8],
    head: usize,
    /// The entity's kind.
    pub kind: &'a str,
    /// The entity's id.
    pub id: &'a str,
}

/// The length that the unit at the start of `buf` claims, for reading the rest of it.
#[must_use]
pub fn claimed_unit_len(buf: &[u8]) -> usize {
    u32_at(buf, 0) as usize
}

impl<'a> UnitView<'a> {
    /// Reads the unit at the start of `buf`, which may go on after it or end inside its records.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode_head(buf: &'a [u8]) -> Result<Self, Malformed> {
        verify_unit_head(buf)?;
        Self::uncommitted(buf)
    }

    /// The same for a reader of one entity, without the names, which it knows; none where the unit is another's.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn decode_head_of(buf: &'a [u8], kind: &str, id: &str) -> Result<Option<Self>, Malformed> {
        let head = verify_unit_head(buf)?;
        let lengths = buf.get(62..64).unwrap_or_default();
        let names = buf.get(UNIT_HEADER..).and_then(|names| names.split_at_checked(kind.len())).unwrap_or_default();
        let same = lengths.iter().map(|&n| n as usize).eq([kind.len(), id.len()])
            && names.0 == kind.as_bytes()
            && names.1.starts_with(id.as_bytes());
        Ok(same.then_some(Self { bytes: buf, head, kind: "", id: "" }))
    }

    /// Reads the head of a unit that [`encode_unit`] made and no committer has completed yet: it has no checksum.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn uncommitted(buf: &'a [u8]) -> Result<Self, Malformed> {
        let head = unit_head_len(buf);
        if buf.len() < head {
            return Err(Malformed("the unit header is cut short"));
        }
        let kind_len = buf.get(62).map_or(0, |&n| n as usize);
        let id_len = buf.get(63).map_or(0, |&n| n as usize);
        let kind = buf.get(UNIT_HEADER..UNIT_HEADER + kind_len).unwrap_or_default();
        let id = buf.get(UNIT_HEADER + kind_len..UNIT_HEADER + kind_len + id_len).unwrap_or_default();
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed("the unit names no entity"));
        Ok(Self { bytes: buf, head, kind: text(kind)?, id: text(id)? })
    }

    /// Reads the whole unit at the start of `buf`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(buf: &'a [u8]) -> Result<Self, Malformed> {
        let bytes = buf.get(..claimed_unit_len(buf)).ok_or(Malformed("the unit is cut short"))?;
        Self::decode_head(bytes)
    }

    /// The whole unit at the start of a buffer in which its head has been verified; whose it is has been seen then.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn decode_again(buf: &'a [u8]) -> Result<Self, Malformed> {
        let bytes = buf.get(..claimed_unit_len(buf)).ok_or(Malformed("the unit is cut short"))?;
        Ok(Self { bytes, head: unit_head_len(bytes), kind: "", id: "" })
    }

    /// Bytes of the unit.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a unit has a header and is never empty")]
    pub fn len(&self) -> usize {
        claimed_unit_len(self.bytes)
    }

    /// Position of the first event.
    #[must_use]
    pub fn position(&self) -> u64 {
        u64_at(self.bytes, 16)
    }

    /// Revision of the first event.
    #[must_use]
    pub fn first_revision(&self) -> u64 {
        u64_at(self.bytes, 24)
    }

    /// Events in the unit.
    #[must_use]
    pub fn events(&self) -> u32 {
        u32_at(self.bytes, 56)
    }

    /// Revision of the last event.
    #[must_use]
    pub fn last_revision(&self) -> u64 {
        self.first_revision() + u64::from(self.events().saturating_sub(1))
    }

    /// How many events of the shard stand before.
    #[must_use]
    pub fn shard_position(&self) -> u64 {
        u64_at(self.bytes, 32)
    }

    /// The entity's unit before this one.
    #[must_use]
    pub fn previous(&self) -> Address {
        Address { segment: u32_at(self.bytes, 40), offset: u32_at(self.bytes, 44) }
    }

    /// When it was committed.
    #[must_use]
    pub fn time(&self) -> u64 {
        u64_at(self.bytes, 48)
    }

    /// The entity's shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        u16_at(self.bytes, 60)
    }

    /// The records, each verified as it is reached.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordView<'a>, Malformed>> + use<'a> {
        let mut rest = self.bytes.get(self.head..).unwrap_or_default();
        let mut left = self.events();
        std::iter::from_fn(move || {
            if left == 0 {
                return (!rest.is_empty()).then(|| {
                    rest = &[];
                    Err(Malformed("the unit holds more than its records"))
                });
            }
            left -= 1;
            match RecordView::decode(rest) {
                Ok((record, after)) => {
                    rest = after;
                    Some(Ok(record))
                }
                Err(malformed) => {
                    (left, rest) = (0, &[]);
                    Some(Err(malformed))
                }
            }
        })
    }
}

/// A record in a buffer, its checksum verified.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// What it is: [`RECORD_EVENT`].
    pub kind: u8,
    /// The type's stored name.
    pub name: &'a str,
    /// The type's stored version.
    pub version: u32,
    /// The encoded value.
    pub payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    #[inline]
    fn decode(buf: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let len = u32_at(buf, 0) as usize;
        let bytes = buf.get(..len).ok_or(Malformed("the record is cut short"))?;
        let (Some(covered), Some(after)) = (bytes.get(8..), buf.get(len..)) else {
            return Err(Malformed("the record is cut short"));
        };
        if u32_at(bytes, 4) != crc32c(covered) {
            return Err(Malformed("the checksum of the record does not match"));
        }
        let [kind, _flags, name_len, _] = bytes_at(bytes, 8).ok_or(Malformed("the record is cut short"))?;
        if kind != RECORD_EVENT {
            return Err(Malformed("the record is of a kind that this build does not know"));
        }
        let name_end = RECORD_HEADER + name_len as usize;
        let payload_start = name_end + u16_at(bytes, 20) as usize + u16_at(bytes, 22) as usize;
        let payload_end = payload_start + u32_at(bytes, 16) as usize;
        let name = bytes.get(RECORD_HEADER..name_end).and_then(|name| std::str::from_utf8(name).ok());
        let (Some(name), Some(payload)) = (name, bytes.get(payload_start..payload_end)) else {
            return Err(Malformed("the record's parts do not fit its length"));
        };
        Ok((Self { kind, name, version: u32_at(bytes, 12), payload }, after))
    }
}

/// The units of a batch's body, in order, each with its offset in the body.
pub fn units_of(body: &[u8]) -> impl Iterator<Item = Result<(usize, UnitView<'_>), Malformed>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
        match UnitView::decode(rest) {
            Ok(unit) => {
                let start = at;
                at += unit.len();
                Some(Ok((start, unit)))
            }
            Err(malformed) => {
                at = body.len();
                Some(Err(malformed))
            }
        }
    })
}
