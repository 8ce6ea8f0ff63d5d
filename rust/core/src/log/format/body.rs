//! Finds what a follower wants in the body of a batch whose checksum has been verified, or that was never on a disk.
//!
//! The hash of the batch covers every byte, so the checksums of heads and records are not looked at again, and what is
//! filtered out costs a look at its unit's header.

use super::{
    Malformed, RECORD_EVENT, RECORD_HEADER, RECORD_STATE, UNIT_HEADER, UNIT_STATE, beside, u16_at, u32_at, u64_at,
    unit_head_len,
};
use crate::feed::{Entry, Filter, Owner, Span};

/// Adds an entry for each event and state behind position `after` that `filter` lets through; `base` is where the body starts in
/// the bytes that the entries are of.
///
/// # Errors
/// What is wrong with the body.
pub(crate) fn pick(
    body: &[u8],
    base: usize,
    filter: &Filter,
    after: u64,
    entries: &mut Vec<Entry>,
) -> Result<(), Malformed> {
    let mut at = 0;
    while at < body.len() {
        let rest = body.get(at..).unwrap_or_default();
        let len = u32_at(rest, 0) as usize;
        let unit = rest.get(..len).filter(|_| len >= UNIT_HEADER).ok_or(Malformed("the unit is cut short"))?;
        pick_of_unit(unit, base + at, filter, after, entries)?;
        at += len;
    }
    Ok(())
}

#[inline]
fn pick_of_unit(
    unit: &[u8],
    base: usize,
    filter: &Filter,
    after: u64,
    entries: &mut Vec<Entry>,
) -> Result<(), Malformed> {
    let flags = u32_at(unit, 12);
    let records = u32_at(unit, 56);
    let first = u64_at(unit, 16);
    let positions = u64::from(records.saturating_sub(beside(flags)));
    if positions == 0 || first + positions <= after.saturating_add(1) {
        return Ok(());
    }
    let (kind_len, id_len) = (length(unit, 62), length(unit, 63));
    let names = UNIT_HEADER..UNIT_HEADER + kind_len + id_len;
    let Some((kind, id)) = unit.get(names.clone()).and_then(|names| names.split_at_checked(kind_len)) else {
        return Err(Malformed("the unit header is cut short"));
    };
    let owner = Owner { kind, id, shard: u16_at(unit, 60), is_state: flags & UNIT_STATE != 0 };
    if !filter.takes_unit(&owner) {
        return Ok(());
    }
    let (head, before) = (unit_head_len(unit), entries.len());
    let (mut at, mut number, mut metadata) = (head, 0, None);
    for _ in 0..records {
        let rest = unit.get(at..).unwrap_or_default();
        let len = u32_at(rest, 0) as usize;
        let record = rest.get(..len).filter(|_| len >= RECORD_HEADER).ok_or(Malformed("the record is cut short"))?;
        let (kind, name_len) = (length(record, 8), length(record, 10));
        let metadata_at = RECORD_HEADER + name_len + usize::from(u16_at(record, 20));
        let metadata_len = u16_at(record, 22);
        let payload_at = metadata_at + usize::from(metadata_len);
        let payload_len = u32_at(record, 16);
        if payload_at + payload_len as usize > len {
            return Err(Malformed("the record's parts do not fit its length"));
        }
        let metadata = *metadata.get_or_insert((at + metadata_at, metadata_len));
        if kind == usize::from(RECORD_EVENT) || kind == usize::from(RECORD_STATE) {
            let name = record.get(RECORD_HEADER..RECORD_HEADER + name_len).unwrap_or_default();
            if first + number > after && filter.takes_name(name) {
                if std::str::from_utf8(name).is_err() {
                    return Err(Malformed("the record's type has no name"));
                }
                let place = |at: usize| u32::try_from(base + at).unwrap_or(u32::MAX);
                entries.push(Entry {
                    position: first + number,
                    revision: u64_at(unit, 24) + number,
                    time: u64_at(unit, 48),
                    version: u32_at(record, 12),
                    names: place(UNIT_HEADER),
                    name: place(at + RECORD_HEADER),
                    metadata: place(metadata.0),
                    payload: Span { start: place(at + payload_at), len: payload_len },
                    kind_len: kind_len as u16,
                    id_len: id_len as u16,
                    name_len: name_len as u16,
                    metadata_len: metadata.1,
                    shard: owner.shard,
                    is_state: kind == usize::from(RECORD_STATE),
                    ends_unit: false,
                });
            }
            number += 1;
        }
        at += len;
    }
    if entries.len() > before {
        if std::str::from_utf8(kind).and_then(|_| std::str::from_utf8(id)).is_err() {
            return Err(Malformed("the unit names no entity"));
        }
        if let Some(last) = entries.last_mut() {
            last.ends_unit = true;
        }
    }
    Ok(())
}

/// A length, or a kind, of one byte.
#[inline]
fn length(bytes: &[u8], at: usize) -> usize {
    bytes.get(at).map_or(0, |&byte| byte.into())
}
