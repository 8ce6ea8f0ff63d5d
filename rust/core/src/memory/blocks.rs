//! The bytes of a memory journal: units one after the other, in blocks that are filled once and never move.
//!
//! ```text
//! unit    twice its entity, plus one where it is other than one event
//!         distance to the entity's unit before, 0 for none
//!         revision of its first event
//!         position of its first event, beyond that of the mark before it
//!         where it is other than one event: how many there are, and which extras
//! extras  length and bytes of the metadata
//!         length and bytes of the command's id, its fingerprint
//!         type, length and payload of the rejection
//! event   type, length, payload; a state alike
//! ```
//!
//! All numbers are varints, seven bits a byte, the lowest first. Neighbours differ little, so that a unit of one small
//! event takes about nine bytes beside its payload: what a command in memory costs is above all the memory that nobody
//! has touched before. An entity is read from its end, along the distances; a position is found from the mark before
//! it. Marks hold the time as well: there is one wherever it moves on.

use rustix::mm::{Advice, madvise};

/// Where a unit starts: the number of its block, and its offset in there.
pub(super) type Place = u64;

const OFFSET_BITS: u32 = MAX_BLOCK_BYTES.trailing_zeros();

/// What the first block holds; each holds twice as much as the one before. A unit that is larger has a block of its own.
const FIRST_BLOCK_BYTES: usize = 1 << 16;
const MAX_DOUBLINGS: usize = 8;
const MAX_BLOCK_BYTES: usize = FIRST_BLOCK_BYTES << MAX_DOUBLINGS;

/// How far apart marks are at most.
const MARK_BYTES: u64 = 1 << 13;

/// The most that a varint takes, and six at the head of a unit.
const NUMBER_BYTES: usize = 10;
const HEAD_BYTES: usize = 6 * NUMBER_BYTES;

/// The most that an event takes beside its payload.
pub(super) const EVENT_BYTES: usize = 2 * NUMBER_BYTES;

/// An extra: the unit holds a state and not events.
const STATE: u64 = 1;
const METADATA: u64 = 2;
const COMMAND: u64 = 4;
const REJECTION: u64 = 8;

#[derive(Debug, Default)]
pub(super) struct Blocks {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
    /// How far the open block is filled, unless its first unit is larger.
    limit: usize,
    marks: Vec<Mark>,
    last: Mark,
}

/// A unit that others are told apart from.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    place: Place,
    position: u64,
    time: u64,
}

/// What the events of one unit have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) entity: u32,
    /// The entity's unit before this one.
    pub(super) before: Option<Place>,
    /// Of the first event.
    pub(super) revision: u64,
    /// Of the first event.
    pub(super) position: u64,
    pub(super) time: u64,
    pub(super) events: u64,
}

/// What few units have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extra<'a> {
    pub(super) is_state: bool,
    pub(super) metadata: &'a [u8],
    pub(super) command: Option<Command<'a>>,
}

/// A command, with type and payload of its rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) id: &'a str,
    pub(super) fingerprint: [u8; 16],
    pub(super) rejection: Option<(u64, &'a [u8])>,
}

impl Extra<'_> {
    fn parts(&self) -> u64 {
        let command =
            self.command.map_or(0, |command| COMMAND | if command.rejection.is_some() { REJECTION } else { 0 });
        let state = if self.is_state { STATE } else { 0 };
        let metadata = if self.metadata.is_empty() { 0 } else { METADATA };
        state | metadata | command
    }

    /// The most that it takes.
    fn bytes(&self) -> usize {
        let rejection = |command: Command<'_>| command.rejection.map_or(0, |(_, payload)| payload.len());
        let command = self.command.map_or(0, |c| c.id.len() + c.fingerprint.len() + rejection(c));
        4 * NUMBER_BYTES + self.metadata.len() + command
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        if !self.metadata.is_empty() {
            put_bytes(bytes, self.metadata);
        }
        if let Some(command) = &self.command {
            put_bytes(bytes, command.id.as_bytes());
            bytes.extend_from_slice(&command.fingerprint);
            if let Some((kind, payload)) = command.rejection {
                put(bytes, kind);
                put_bytes(bytes, payload);
            }
        }
    }
}

/// A unit in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) head: Head,
    pub(super) extra: Extra<'a>,
    pub(super) events: Events<'a>,
}

impl Blocks {
    /// Begins a unit, of which the events take at most `bytes`: they are to follow at once.
    #[inline]
    pub(super) fn begin(&mut self, head: &Head, extra: &Extra<'_>, bytes: usize) -> Place {
        let extras = extra.parts();
        let bytes = if extras == 0 { bytes } else { bytes + extra.bytes() };
        if self.open.len() + HEAD_BYTES + bytes > self.limit {
            self.open_block(HEAD_BYTES + bytes);
        }
        let place = at(self.full.len(), self.open.len());
        if head.time != self.last.time || place - self.last.place >= MARK_BYTES {
            self.last = Mark { place, position: head.position, time: head.time };
            self.marks.push(self.last);
        }
        let distance = head.before.map_or(0, |before| place - before);
        let is_one = head.events == 1 && extras == 0;
        let first = u64::from(head.entity) << 1 | u64::from(!is_one);
        for number in [first, distance, head.revision, head.position - self.last.position] {
            put(&mut self.open, number);
        }
        if !is_one {
            put(&mut self.open, head.events);
            put(&mut self.open, extras);
            extra.put(&mut self.open);
        }
        place
    }

    /// The next event of the unit that was begun.
    #[inline]
    pub(super) fn event(&mut self, kind: u64, payload: &[u8]) {
        for number in [kind, payload.len() as u64] {
            put(&mut self.open, number);
        }
        self.open.extend_from_slice(payload);
    }

    #[cold]
    fn open_block(&mut self, bytes: usize) {
        let full = std::mem::take(&mut self.open);
        if !full.is_empty() {
            self.full.push(full);
        }
        self.limit = FIRST_BLOCK_BYTES << self.full.len().min(MAX_DOUBLINGS);
        self.open = Vec::with_capacity(bytes.max(self.limit));
        prefer_large_pages(&mut self.open);
    }

    fn mark(&self, is_before: impl Fn(&Mark) -> bool) -> Mark {
        let after = self.marks.partition_point(is_before);
        self.marks.get(after.wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// The position before the first unit of that time or a later one; none where there is no such unit.
    pub(super) fn position_at(&self, time: u64) -> Option<u64> {
        let at = self.marks.partition_point(|mark| mark.time < time);
        self.marks.get(at).map(|mark| mark.position.saturating_sub(1))
    }

    fn block(&self, number: usize) -> Option<&Vec<u8>> {
        if number == self.full.len() { Some(&self.open) } else { self.full.get(number) }
    }

    /// The unit at a place, which may be the end of a block.
    pub(super) fn unit(&self, place: Place) -> Option<Stored<'_>> {
        let (mut number, mut offset) = parts(place);
        let mut block = self.block(number)?;
        if offset == block.len() {
            (number, offset) = (number + 1, 0);
            block = self.block(number)?;
        }
        let mut rest = Numbers(block.get(offset..)?);
        let place = at(number, offset);
        let mark = self.mark(|mark| mark.place <= place);
        let first = rest.next()?;
        let is_one = first & 1 == 0;
        let head = Head {
            entity: u32::try_from(first >> 1).ok()?,
            before: rest.before(place)?,
            revision: rest.next()?,
            position: mark.position + rest.next()?,
            time: mark.time,
            events: if is_one { 1 } else { rest.next()? },
        };
        let extra = if is_one { Extra::default() } else { rest.extra()? };
        Some(Stored { head, extra, events: Events { rest, left: head.events, number, bytes: block.len() } })
    }

    /// The first revision of a unit, and its entity's unit before.
    pub(super) fn link(&self, place: Place) -> Option<(u64, Option<Place>)> {
        let (number, offset) = parts(place);
        let mut rest = Numbers(self.block(number)?.get(offset..)?);
        rest.next()?;
        let before = rest.before(place)?;
        Some((rest.next()?, before))
    }

    /// Where the unit with a position starts; the end where there is none.
    pub(super) fn seek(&self, position: u64) -> Place {
        let mut place = self.mark(|mark| mark.position <= position).place;
        while let Some(Stored { head, events, .. }) = self.unit(place)
            && head.position + head.events <= position
        {
            place = events.end();
        }
        place
    }
}

/// The events of a unit: type and payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Events<'a> {
    rest: Numbers<'a>,
    left: u64,
    number: usize,
    bytes: usize,
}

impl Events<'_> {
    /// Where the unit ends.
    pub(super) fn end(mut self) -> Place {
        self.by_ref().for_each(drop);
        at(self.number, (self.bytes - self.rest.0.len()).min(MAX_BLOCK_BYTES))
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.rest.next()?, self.rest.bytes()?))
    }
}

#[derive(Debug, Clone, Copy)]
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    #[inline]
    fn next(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Bytes behind their length.
    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.next()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn extra(&mut self) -> Option<Extra<'a>> {
        let extras = self.next()?;
        let metadata = if extras & METADATA != 0 { self.bytes()? } else { &[] };
        let command = if extras & COMMAND != 0 {
            let id = std::str::from_utf8(self.bytes()?).ok()?;
            let (fingerprint, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            let rejection = if extras & REJECTION != 0 { Some((self.next()?, self.bytes()?)) } else { None };
            Some(Command { id, fingerprint: *fingerprint, rejection })
        } else {
            None
        };
        Some(Extra { is_state: extras & STATE != 0, metadata, command })
    }

    fn before(&mut self, place: Place) -> Option<Option<Place>> {
        self.next().map(|distance| (distance > 0).then(|| place - distance))
    }
}

fn parts(place: Place) -> (usize, usize) {
    let number = usize::try_from(place >> OFFSET_BITS).unwrap_or(usize::MAX);
    (number, place as usize % MAX_BLOCK_BYTES)
}

fn at(number: usize, offset: usize) -> Place {
    ((number as u64) << OFFSET_BITS) + offset as u64
}

fn put_bytes(bytes: &mut Vec<u8>, more: &[u8]) {
    put(bytes, more.len() as u64);
    bytes.extend_from_slice(more);
}

#[inline]
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Asks for large pages where a block has some: their first touch costs a tenth. A kernel that has none says no.
fn prefer_large_pages(block: &mut Vec<u8>) {
    const LARGE: usize = 2 << 20;
    let room = block.spare_capacity_mut();
    let skipped = room.as_ptr().align_offset(LARGE);
    if let Some(aligned) = room.get_mut(skipped..).filter(|aligned| aligned.len() >= LARGE) {
        let bytes = aligned.len() / LARGE * LARGE;
        #[expect(unsafe_code, reason = "measured to take 4 % off a command in memory")]
        // SAFETY: whole pages of memory that is ours; the advice changes how they are backed, never what they hold.
        let _ = unsafe { madvise(aligned.as_mut_ptr().cast(), bytes, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_event_takes_ten_bytes_beside_its_payload() {
        let mut blocks = Blocks::default();
        let (mut before, mut place) = ([None; 1000], 0);
        for position in 1..=100_000 {
            let entity = position as u32 % 1000;
            let held = &mut before[entity as usize];
            let head = Head { entity, before: *held, revision: position / 1000 + 1, position, time: 7, events: 1 };
            place = blocks.begin(&head, &Extra::default(), 10 + EVENT_BYTES);
            blocks.event(0, &[7; 10]);
            *held = Some(place);
            assert_eq!(blocks.unit(place).map(|unit| unit.head), Some(head));
        }
        let bytes: usize = blocks.full.iter().map(Vec::len).sum::<usize>() + blocks.open.len();
        let marks = blocks.marks.len() * size_of::<Mark>();
        assert!((bytes + marks) / 100_000 <= 21, "{bytes} and {marks}");
        assert_eq!(blocks.seek(100_000), place);
    }
}
