//! Reads what is durable: one entity in order of revision, or everything in order of position.
//!
//! Every unit that is handed out has been verified: its checksums, whose it is, and that its revision follows. What does
//! not is an error with its place, never a shorter answer.

use super::Shared;
use super::format::{Address, DATA_START, Malformed, RECORD_EVENT, UNIT_HEADER, UnitView, claimed_unit_len, units_of};
use super::scan::{ScanPoint, Scanner};
use super::segment;
use crate::error::{Result, StoreError};
use crate::io::File;
use crate::journal::{EntityKey, MAX_NAME_BYTES, Read, StoredEvent};
use std::sync::Arc;

/// Bytes read at once where an entity's units stand close together.
const WINDOW: u64 = 128 * 1024;
/// Bytes read at once where they do not.
const SMALL: u64 = 4096;
/// The longest head of a unit.
const LONGEST_HEAD: u64 = (UNIT_HEADER + 2 * MAX_NAME_BYTES + 8) as u64;

/// Bytes of one segment around the last unit read.
struct Window<'a> {
    shared: &'a Shared,
    segment: u32,
    file: Option<Arc<dyn File>>,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// From which end a unit is likely to be followed by the next one wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Backward,
    Forward,
}

impl<'a> Window<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, segment: 0, file: None, end: 0, start: 0, bytes: Vec::new() }
    }

    fn corrupt(&self, address: Address, malformed: Malformed) -> StoreError {
        StoreError::Corrupt {
            path: segment::segment_path(&self.shared.path, address.segment),
            offset: u64::from(address.offset),
            detail: malformed.0.to_owned(),
        }
    }

    fn enter(&mut self, segment: u32) -> Result<()> {
        if self.segment != segment || self.file.is_none() {
            let chain = self.shared.chain.read();
            self.file = Some(chain.file(&*self.shared.door, &self.shared.path, segment)?);
            self.segment = segment;
            self.bytes.clear();
            self.end = match chain.get(segment).and_then(|s| s.seal) {
                Some(seal) => seal.end,
                None => self.shared.reach.lock().point.offset,
            };
        }
        Ok(())
    }

    /// The bytes from `address` on: at least `least` of them, or all there are.
    fn bytes(&mut self, address: Address, least: u64, size: u64, direction: Direction) -> Result<&[u8]> {
        self.enter(address.segment)?;
        let offset = u64::from(address.offset);
        let least_end = (offset + least).min(self.end);
        if offset < DATA_START || offset >= self.end {
            return Err(self.corrupt(address, Malformed("a unit is said to stand where none can")));
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if offset < held.start || least_end > held.end {
            let (start, end) = match direction {
                Direction::Forward => (offset, offset + size.max(least)),
                Direction::Backward => (least_end.saturating_sub(size.max(least)), least_end),
            };
            (self.start, self.bytes) = (start.max(DATA_START).min(offset), std::mem::take(&mut self.bytes));
            let len = usize::try_from(end.min(self.end) - self.start).unwrap_or(0);
            self.bytes.clear();
            self.bytes.resize(len, 0);
            if let Some(file) = &self.file
                && let Err(error) = file.read_at(&mut self.bytes, self.start)
            {
                self.bytes.clear();
                let path = segment::segment_path(&self.shared.path, address.segment);
                return Err(StoreError::io(path, "reading a segment", error));
            }
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(at..).unwrap_or_default())
    }

    fn head(&mut self, address: Address, size: u64) -> Result<UnitView<'_>> {
        self.bytes(address, LONGEST_HEAD, size, Direction::Backward)?;
        let at = usize::try_from(u64::from(address.offset) - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(at..).unwrap_or_default();
        UnitView::decode_head(bytes).map_err(|malformed| self.corrupt(address, malformed))
    }

    fn unit(&mut self, address: Address, size: u64) -> Result<UnitView<'_>> {
        let head = self.bytes(address, UNIT_HEADER as u64, size, Direction::Forward)?;
        let len = claimed_unit_len(head) as u64;
        // The length is trusted for reading only after the bounds of the segment; the checksum comes before its use.
        self.bytes(address, len, size, Direction::Forward)?;
        let at = usize::try_from(u64::from(address.offset) - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(at..).unwrap_or_default();
        UnitView::decode(bytes).map_err(|malformed| self.corrupt(address, malformed))
    }
}

/// Visits the durable events of an entity from revision `from`; returns its last durable revision.
pub(super) fn read_entity(
    shared: &Shared,
    entity: &EntityKey,
    from: u64,
    visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
) -> Result<u64> {
    let head = shared.heads.lock().get(&entity.kind, &entity.id, entity.hash());
    let Some(head) = head else { return Ok(0) };
    if from > head.revision {
        return Ok(head.revision);
    }
    let mut window = Window::new(shared);
    let addresses = addresses(&mut window, entity, head.address, from)?;
    let size = window_size(&addresses);
    let mut expected = 0;
    for &address in addresses.iter().rev() {
        let unit = window.unit(address, size)?;
        if unit.kind != &*entity.kind || unit.id != &*entity.id {
            return Err(window.corrupt(address, Malformed("the unit is another entity's")));
        }
        if expected != 0 && unit.first_revision() != expected {
            return Err(window.corrupt(address, Malformed("the unit does not continue the entity")));
        }
        expected = unit.last_revision() + 1;
        match visit_unit(&unit, from, visit) {
            Ok(Read::More) => {}
            Ok(Read::Enough) => return Ok(head.revision),
            Err(malformed) => return Err(window.corrupt(address, malformed)),
        }
    }
    if expected != head.revision + 1 {
        return Err(window.corrupt(head.address, Malformed("the entity's last unit does not reach its revision")));
    }
    Ok(head.revision)
}

fn window_size(addresses: &[Address]) -> u64 {
    let (Some(last), Some(first)) = (addresses.first(), addresses.last()) else { return SMALL };
    if last.segment != first.segment {
        return WINDOW;
    }
    let spread = u64::from(last.offset.saturating_sub(first.offset));
    if spread / (addresses.len() as u64) < SMALL { WINDOW } else { SMALL }
}

/// Where the units of an entity stand, from the last back to the one that holds revision `from`.
fn addresses(window: &mut Window<'_>, entity: &EntityKey, last: Address, from: u64) -> Result<Vec<Address>> {
    let mut found = Vec::new();
    let mut address = last;
    let mut size = SMALL;
    loop {
        let unit = window.head(address, size)?;
        let (first_revision, previous) = (unit.first_revision(), unit.previous());
        found.push(address);
        if first_revision <= from.max(1) {
            return Ok(found);
        }
        if previous == Address::NONE || previous >= address {
            return Err(window.corrupt(address, Malformed("the unit does not say where the one before it stands")));
        }
        if previous.segment != address.segment
            && let Some(indexed) = indexed(window, entity, previous)?
        {
            let (first_revision, before) = indexed_start(window, &indexed)?;
            found.extend(indexed.iter().rev().copied());
            if first_revision <= from.max(1) {
                return Ok(found);
            }
            // The loop goes on from the first unit of that segment, which is already noted.
            found.pop();
            address = before;
            continue;
        }
        size = if address.segment == previous.segment && address.offset - previous.offset < SMALL as u32 * 4 {
            WINDOW
        } else {
            SMALL
        };
        address = previous;
    }
}

/// The units of an entity in a sealed segment, from its sidecar; `None` where the sidecar cannot say.
fn indexed(window: &mut Window<'_>, entity: &EntityKey, last: Address) -> Result<Option<Vec<Address>>> {
    let shared = window.shared;
    let Some(sidecar) = shared.chain.read().sidecar(&*shared.door, &shared.path, last.segment)? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for &offset in sidecar.offsets(entity.hash()) {
        let address = Address { segment: last.segment, offset };
        let unit = window.head(address, SMALL)?;
        if unit.kind == &*entity.kind && unit.id == &*entity.id {
            found.push(address);
        }
    }
    Ok(found.last().is_some_and(|found| *found == last).then_some(found))
}

fn indexed_start(window: &mut Window<'_>, indexed: &[Address]) -> Result<(u64, Address)> {
    let first = indexed.first().copied().unwrap_or_default();
    Ok((window.head(first, SMALL)?.first_revision(), first))
}

fn visit_unit(
    unit: &UnitView<'_>,
    from: u64,
    visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
) -> std::result::Result<Read, Malformed> {
    for (record, number) in unit.records().zip(0u64..) {
        let record = record?;
        let revision = unit.first_revision() + number;
        if record.kind != RECORD_EVENT || revision < from {
            continue;
        }
        let event = StoredEvent {
            revision,
            position: unit.position() + number,
            time: unit.time(),
            name: record.name,
            version: record.version,
            payload: record.payload,
        };
        if visit(event) == Read::Enough {
            return Ok(Read::Enough);
        }
    }
    Ok(Read::More)
}

/// Visits every durable event from position `from`.
pub(super) fn read_from(
    shared: &Shared,
    from: u64,
    visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read,
) -> Result<()> {
    let reach = shared.reach.lock().clone();
    if from > reach.position {
        return Ok(());
    }
    let mut id = shared.chain.read().holding(from).map_or(reach.segment, |s| s.header.id);
    while id <= reach.segment {
        let (file, found) = {
            let chain = shared.chain.read();
            (chain.file(&*shared.door, &shared.path, id)?, chain.get(id).copied())
        };
        let Some(found) = found else { break };
        let path = segment::segment_path(&shared.path, id);
        let corrupt = |offset: u64, malformed: Malformed| StoreError::Corrupt {
            path: path.clone(),
            offset,
            detail: malformed.0.to_owned(),
        };
        let end = if id == reach.segment { reach.point.offset } else { found.seal.map_or(0, |seal| seal.end) };
        let mut scanner = Scanner::new(file, &path, &found.header, ScanPoint::start_of(&found.header), end);
        while let Some(batch) = scanner.next_batch()? {
            if batch.header.first_position + u64::from(batch.header.events) <= from {
                continue;
            }
            for unit in units_of(batch.body) {
                let (_, unit) = unit.map_err(|malformed| corrupt(batch.offset, malformed))?;
                if unit.position() + u64::from(unit.events()) <= from {
                    continue;
                }
                let key = EntityKey::new(Arc::from(unit.kind), Arc::from(unit.id));
                let first = unit.first_revision() + from.saturating_sub(unit.position());
                match visit_unit(&unit, first, &mut |event| visit(&key, event)) {
                    Ok(Read::More) => {}
                    Ok(Read::Enough) => return Ok(()),
                    Err(malformed) => return Err(corrupt(batch.offset, malformed)),
                }
            }
        }
        if scanner.point().offset != end {
            return Err(corrupt(scanner.point().offset, scanner.stopped));
        }
        id += 1;
    }
    Ok(())
}
