//! Reads what is durable: one entity in order of revision, or everything in order of position.
//!
//! Every unit that is handed out has been verified: its checksums, whose it is, and that its revision follows. What does
//! not is an error with its place, never a shorter answer.

use super::Shared;
use super::format::{
    Address, Malformed, RECORD_EVENT, RECORD_STATE, UNIT_HEADER, UnitView, claimed_unit_len, padded, units_of,
};
use super::segment;
use super::walk::Walk;
use super::window::{Direction, Windows};
use crate::error::{Result, StoreError};
use crate::journal::{EntityKey, MAX_NAME_BYTES, Read, StoredEvent, Wait};
use std::sync::Arc;

/// Bytes read at once where an entity's units stand close together.
pub(super) const LARGE: u64 = 128 * 1024;
/// How far apart units may stand to be read together.
pub(super) const CLOSE: u32 = 8 * 1024;
/// The longest head of a unit.
pub(super) const LONGEST_HEAD: u64 = padded(UNIT_HEADER + 2 * MAX_NAME_BYTES) as u64;

/// Where a unit of the entity stands, and the stretch in which it was seen.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) address: Address,
    pub(super) window: usize,
}

/// Visits the durable events of an entity from revision `from`; returns its last durable revision.
pub(super) fn read_entity(
    shared: &Shared,
    entity: &EntityKey,
    from: u64,
    wait: Wait,
    visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
) -> Result<u64> {
    let head = shared.heads.lock().get(&entity.kind, &entity.id, entity.hash());
    let Some(head) = head else { return Ok(0) };
    if from > head.revision {
        return Ok(head.revision);
    }
    let mut windows = Windows::new(shared, wait);
    let found = find(&mut windows, entity, head.address, from)?;
    let mut expected = 0;
    for &Found { address, window } in found.iter().rev() {
        let mut held = windows.from(window, address);
        if held.len() < UNIT_HEADER || held.len() < claimed_unit_len(held) {
            let window = whole(&mut windows, address, window)?;
            held = windows.from(window, address);
        }
        let unit = UnitView::decode_again(held).map_err(|malformed| windows.corrupt(address, malformed))?;
        if expected != 0 && unit.first_revision() != expected {
            return Err(windows.corrupt(address, Malformed("the unit does not continue the entity")));
        }
        expected = unit.last_revision() + 1;
        if unit.is_state() {
            continue;
        }
        match visit_unit(&unit, from, visit) {
            Ok(Read::More) => {}
            Ok(Read::Enough) => return Ok(head.revision),
            Err(malformed) => return Err(windows.corrupt(address, malformed)),
        }
    }
    if expected != head.revision + 1 {
        return Err(windows.corrupt(head.address, Malformed("the entity's last unit does not reach its revision")));
    }
    Ok(head.revision)
}

/// A stretch that holds the whole of a unit that was seen, and whose head is verified.
#[inline(never)]
pub(super) fn whole(windows: &mut Windows<'_>, address: Address, window: usize) -> Result<usize> {
    let mut window = window;
    if windows.from(window, address).len() < UNIT_HEADER {
        // Its stretch was not kept; those of its neighbours were not either.
        window = windows.load(address, LONGEST_HEAD, LARGE, Direction::Forward)?;
    }
    let len = claimed_unit_len(windows.from(window, address));
    if windows.from(window, address).len() >= len {
        return Ok(window);
    }
    let window = windows.load(address, len as u64, len as u64, Direction::Forward)?;
    UnitView::decode(windows.from(window, address)).map_err(|malformed| windows.corrupt(address, malformed))?;
    Ok(window)
}

/// The units of an entity, from the last back to the one that holds revision `from`.
fn find(windows: &mut Windows<'_>, entity: &EntityKey, last: Address, from: u64) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut address = last;
    let (mut size, mut direction) = (LONGEST_HEAD, Direction::Forward);
    loop {
        windows.pass()?;
        let window = windows.load(address, LONGEST_HEAD, size, direction)?;
        let (first_revision, previous, len) = {
            let Some(unit) = head(windows, window, address, entity)? else {
                return Err(windows.corrupt(address, Malformed("the unit is another entity's")));
            };
            (unit.first_revision(), unit.previous(), claimed_unit_len(windows.from(window, address)) as u64)
        };
        found.push(Found { address, window });
        if first_revision <= from.max(1) {
            return Ok(found);
        }
        if previous == Address::NONE || previous >= address {
            return Err(windows.corrupt(address, Malformed("the unit does not say where the one before it stands")));
        }
        if previous.segment != address.segment
            && let Some(indexed) = indexed(windows, entity, previous)?
            && let Some((first, rest)) = indexed.split_first()
        {
            // The loop goes on from the first unit there, which says what stands before it.
            found.extend(rest.iter().rev().copied());
            address = first.address;
            continue;
        }
        let close = address.segment == previous.segment && address.offset - previous.offset < CLOSE;
        // Units of an entity tend to be of one size: where they stand apart, each is read alone and whole.
        (size, direction) = if close { (LARGE, Direction::Backward) } else { (len.min(LARGE), Direction::Forward) };
        address = previous;
    }
}

/// The head of a unit; none where the unit is another entity's.
#[inline(always)]
pub(super) fn head<'w>(
    windows: &'w Windows<'_>,
    window: usize,
    address: Address,
    entity: &EntityKey,
) -> Result<Option<UnitView<'w>>> {
    UnitView::decode_head_of(windows.from(window, address), &entity.kind, &entity.id)
        .map_err(|malformed| windows.corrupt(address, malformed))
}

/// The units of an entity in a sealed segment, from its sidecar; `None` where the sidecar cannot say.
fn indexed(windows: &mut Windows<'_>, entity: &EntityKey, last: Address) -> Result<Option<Vec<Found>>> {
    let shared = windows.shared;
    let Some(sidecar) = windows.chain()?.sidecar(&*shared.door, &shared.path, last.segment, windows.wait)? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    let offsets = sidecar.offsets(entity.hash());
    let close = offsets.windows(2).all(|pair| matches!(pair, [a, b] if b.saturating_sub(*a) < CLOSE));
    let mut size = if close { LARGE } else { LONGEST_HEAD };
    for &offset in offsets {
        let address = Address { segment: last.segment, offset };
        windows.pass()?;
        let window = windows.load(address, LONGEST_HEAD, size, Direction::Forward)?;
        if head(windows, window, address, entity)?.is_some() {
            found.push(Found { address, window });
        }
        if !close {
            size = (claimed_unit_len(windows.from(window, address)) as u64).min(LARGE);
        }
    }
    Ok(found.last().is_some_and(|found| found.address == last).then_some(found))
}

/// Visits what a unit holds from revision `from` on: its events, or its state.
pub(super) fn visit_unit(
    unit: &UnitView<'_>,
    from: u64,
    visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
) -> std::result::Result<Read, Malformed> {
    let (mut number, mut metadata) = (0, None);
    for record in unit.records() {
        let record = record?;
        let metadata = *metadata.get_or_insert(record.metadata);
        if !matches!(record.kind, RECORD_EVENT | RECORD_STATE) {
            continue;
        }
        let (revision, position) = (unit.first_revision() + number, unit.position() + number);
        number += 1;
        if revision < from {
            continue;
        }
        let event = StoredEvent {
            revision,
            position,
            time: unit.time(),
            name: record.name,
            version: record.version,
            payload: record.payload,
            metadata,
            is_state: record.kind == RECORD_STATE,
        };
        if visit(event) == Read::Enough {
            return Ok(Read::Enough);
        }
    }
    Ok(Read::More)
}

/// Visits every durable event and state from position `from`.
pub(super) fn read_from(
    shared: &Shared,
    from: u64,
    visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read,
) -> Result<()> {
    let last = shared.reach.lock().position;
    let mut walk = Walk::after(from.saturating_sub(1), None);
    while walk.position() < last
        && let Some(batch) = walk.next_batch(shared)?
    {
        let corrupt = |malformed: Malformed| StoreError::Corrupt {
            path: segment::segment_path(&shared.path, batch.header.segment),
            offset: batch.offset,
            detail: malformed.0.to_owned(),
        };
        for unit in units_of(batch.body) {
            let (_, unit) = unit.map_err(corrupt)?;
            if unit.position() + u64::from(unit.positions()) <= from {
                continue;
            }
            let key = EntityKey::new(Arc::from(unit.kind), Arc::from(unit.id));
            let first = unit.first_revision() + from.saturating_sub(unit.position());
            if visit_unit(&unit, first, &mut |event| visit(&key, event)).map_err(corrupt)? == Read::Enough {
                return Ok(());
            }
        }
    }
    Ok(())
}
