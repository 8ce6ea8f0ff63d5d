//! The bytes on disk: sizes, offsets and the encoding of units and records; those of segments and batches are in
//! `headers`. The tables are in `docs/log-format.md`.
//!
//! Everything is little-endian. Decoding never trusts a length: each is checked against what is there before it is
//! used, and nothing here allocates.

mod body;
mod headers;

pub(crate) use body::pick;
pub use headers::{
    BATCH_BODY_LEN, BATCH_HEADER, BATCH_MAGIC, BatchHeader, FLAG_CLEAN, FLAG_MARK, Origin, SEGMENT_HEADER,
    SegmentHeader, batch_hash, body_hash,
};

use super::crc::crc32c;
use crate::journal::{Content, Record, StoredCommand, StoredRejection, Unit};

/// Format version written and read. 0 is the version under construction: later builds refuse it.
pub const FORMAT_VERSION: u32 = 0;

/// Everything starts at a multiple of this.
pub const ALIGN: usize = 8;
/// A segment's header is kept twice, each in a block of this size, so that one torn block cannot take both.
pub const HEADER_BLOCK: u64 = 4096;
/// Where the first batch of a segment starts.
pub const DATA_START: u64 = 2 * HEADER_BLOCK;

/// Bytes of a unit header before kind and id.
pub const UNIT_HEADER: usize = 64;
/// Bytes of a record header before name, extensions, metadata and payload.
pub const RECORD_HEADER: usize = 24;

/// Unit flag: its content is a durable state.
const UNIT_STATE: u32 = 1;
/// Unit flag: a record of its command stands first.
const UNIT_COMMAND: u32 = 2;
/// Unit flag: why the command was refused stands next.
const UNIT_REJECTION: u32 = 4;

/// Unit flag: its content is a note.
const UNIT_NOTE: u32 = 8;

/// Record kind: an event.
pub const RECORD_EVENT: u8 = 1;
/// Record kind: a durable state.
pub const RECORD_STATE: u8 = 2;
/// Record kind: a command; its name is the command's id, its payload the fingerprint.
pub const RECORD_COMMAND: u8 = 3;
/// Record kind: why a command was refused.
pub const RECORD_REJECTION: u8 = 4;

/// Record kind: the value of a note.
pub const RECORD_NOTE: u8 = 5;

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

/// The records of a unit in the order in which they stand, each with its kind and the metadata that stands in it: the
/// unit's in the first, none in the others.
#[inline]
fn each_record(unit: &Unit<'_>, mut each: impl FnMut(u8, &Record<'_>, &[u8])) {
    let (kind, content) = match &unit.content {
        Content::Events(events) => (RECORD_EVENT, *events),
        Content::State(state) => (RECORD_STATE, std::slice::from_ref(state)),
        Content::Note(value) => return each(RECORD_NOTE, &Record { name: "", version: 0, payload: value }, &[]),
    };
    let mut metadata = unit.metadata;
    if let Some(command) = &unit.command {
        let record = Record { name: command.id, version: 0, payload: &command.fingerprint };
        each(RECORD_COMMAND, &record, std::mem::take(&mut metadata));
        if let Some(rejection) = &command.rejection {
            each(RECORD_REJECTION, rejection, &[]);
        }
    }
    for record in content {
        each(kind, record, std::mem::take(&mut metadata));
    }
}

#[inline]
fn record_len(record: &Record<'_>, metadata: &[u8]) -> usize {
    padded(RECORD_HEADER + record.name.len() + metadata.len() + record.payload.len())
}

/// Bytes that a unit takes, and those of the longest name in it: the entity's, a type's or the command's.
#[must_use]
pub fn measure(unit: &Unit<'_>) -> (usize, usize) {
    let (kind, id) = (unit.entity.kind.len(), unit.entity.id.len());
    let (mut len, mut longest) = (UNIT_HEADER + padded(kind + id), kind.max(id));
    each_record(unit, |_, record, metadata| {
        len += record_len(record, metadata);
        longest = longest.max(record.name.len());
    });
    (len, longest)
}

/// Appends a unit to `out`, with everything but what the committer decides (position, time, previous unit, checksums).
///
/// Lengths have been checked by the caller: names take at most [`MAX_NAME_BYTES`](crate::journal::MAX_NAME_BYTES), metadata
/// [`MAX_METADATA_BYTES`](crate::journal::MAX_METADATA_BYTES), the unit fits a `u32`.
pub fn encode_unit(unit: &Unit<'_>, len: usize, shard: u16, out: &mut Vec<u8>) {
    let (kind, id) = (unit.entity.kind.as_bytes(), unit.entity.id.as_bytes());
    let start = out.len();
    out.reserve(len);
    let mut flags = match unit.content {
        Content::Events(_) => 0,
        Content::State(_) => UNIT_STATE,
        Content::Note(_) => UNIT_NOTE,
    };
    if let Some(command) = &unit.command {
        flags |= if command.rejection.is_some() { UNIT_COMMAND | UNIT_REJECTION } else { UNIT_COMMAND };
    }
    let records = unit.content.count() as u32 + beside(flags);
    let mut header = [0u8; UNIT_HEADER];
    put(&mut header, 0, &(len as u32).to_le_bytes());
    put(&mut header, 12, &flags.to_le_bytes());
    put(&mut header, 24, &unit.first_revision.to_le_bytes());
    put(&mut header, 56, &records.to_le_bytes());
    put(&mut header, 60, &shard.to_le_bytes());
    put(&mut header, 62, &[kind.len() as u8, id.len() as u8]);
    out.extend_from_slice(&header);
    out.extend_from_slice(kind);
    out.extend_from_slice(id);
    out.resize(start + UNIT_HEADER + padded(kind.len() + id.len()), 0);
    each_record(unit, |kind, record, metadata| {
        let at = out.len();
        let len = record_len(record, metadata);
        let mut header = [0u8; RECORD_HEADER];
        put(&mut header, 0, &(len as u32).to_le_bytes());
        put(&mut header, 8, &[kind, 0, record.name.len() as u8]);
        put(&mut header, 12, &record.version.to_le_bytes());
        put(&mut header, 16, &(record.payload.len() as u32).to_le_bytes());
        put(&mut header, 22, &(metadata.len() as u16).to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(record.name.as_bytes());
        out.extend_from_slice(metadata);
        out.extend_from_slice(record.payload);
        out.resize(at + len, 0);
    });
}

/// How many records of a unit with these flags take no position.
fn beside(flags: u32) -> u32 {
    (flags & (UNIT_COMMAND | UNIT_REJECTION | UNIT_NOTE)).count_ones()
}

/// What the committer adds to an encoded unit.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// Position of the first event or state.
    pub position: u64,
    /// How many events and states of the shard stand before.
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

    /// Bytes before the records.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head
    }

    fn flags(&self) -> u32 {
        u32_at(self.bytes, 12)
    }

    /// Whether its content is a durable state.
    #[must_use]
    pub fn is_state(&self) -> bool {
        self.flags() & UNIT_STATE != 0
    }

    /// Whether its content is a note.
    #[must_use]
    pub fn is_note(&self) -> bool {
        self.flags() & UNIT_NOTE != 0
    }

    /// Position of the first event or state.
    #[must_use]
    pub fn position(&self) -> u64 {
        u64_at(self.bytes, 16)
    }

    /// Revision of the first event or state.
    #[must_use]
    pub fn first_revision(&self) -> u64 {
        u64_at(self.bytes, 24)
    }

    /// How many positions and revisions it takes: one for each event, one for a state.
    #[must_use]
    pub fn positions(&self) -> u32 {
        u32_at(self.bytes, 56).saturating_sub(beside(self.flags()))
    }

    /// The entity's revision after it.
    #[must_use]
    pub fn last_revision(&self) -> u64 {
        (self.first_revision() + u64::from(self.positions())).saturating_sub(1)
    }

    /// How many events and states of the shard stand before.
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

    /// How many records a [`command`](Self::command) is made of; 0 where the unit has none.
    #[must_use]
    pub fn command_records(&self) -> u32 {
        (self.flags() & (UNIT_COMMAND | UNIT_REJECTION)).count_ones()
    }

    /// What is stored of the command; the records behind it need not be there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn command(&self) -> Result<Option<StoredCommand<'a>>, Malformed> {
        let mut records = self.records();
        let mut next = |flag, kind| match records.next().filter(|_| self.flags() & flag != 0).transpose() {
            Ok(Some(record)) if record.kind != kind => Err(Malformed("the unit does not hold what it says")),
            record => record,
        };
        let Some(command) = next(UNIT_COMMAND, RECORD_COMMAND)? else { return Ok(None) };
        let rejection = next(UNIT_REJECTION, RECORD_REJECTION)?;
        Ok(Some(StoredCommand {
            id: command.name,
            fingerprint: bytes_at(command.payload, 0).ok_or(Malformed("the command has no fingerprint"))?,
            revision: self.last_revision(),
            time: self.time(),
            rejection: rejection.map(|RecordView { name, version, payload, .. }| StoredRejection {
                name,
                version,
                payload,
            }),
        }))
    }

    /// The records, each verified as it is reached.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordView<'a>, Malformed>> + use<'a> {
        let mut rest = self.bytes.get(self.head..).unwrap_or_default();
        let mut left = u32_at(self.bytes, 56);
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
    /// What it is: [`RECORD_EVENT`], [`RECORD_STATE`], [`RECORD_COMMAND`], [`RECORD_REJECTION`], [`RECORD_NOTE`].
    pub kind: u8,
    /// The type's stored name, or the command's id.
    pub name: &'a str,
    /// The type's stored version.
    pub version: u32,
    /// The metadata of the unit, in its first record.
    pub metadata: &'a [u8],
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
        if !(RECORD_EVENT..=RECORD_NOTE).contains(&kind) {
            return Err(Malformed("the record is of a kind that this build does not know"));
        }
        let name_end = RECORD_HEADER + name_len as usize;
        let metadata_start = name_end + u16_at(bytes, 20) as usize;
        let payload_start = metadata_start + u16_at(bytes, 22) as usize;
        let payload_end = payload_start + u32_at(bytes, 16) as usize;
        let name = bytes.get(RECORD_HEADER..name_end).and_then(|name| std::str::from_utf8(name).ok());
        let metadata = bytes.get(metadata_start..payload_start);
        let (Some(name), Some(metadata), Some(payload)) = (name, metadata, bytes.get(payload_start..payload_end))
        else {
            return Err(Malformed("the record's parts do not fit its length"));
        };
        Ok((Self { kind, name, version: u32_at(bytes, 12), metadata, payload }, after))
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
