//! Reads notes: of each name the last unit, and nothing else of the log.
//!
//! What is handed out has been verified: its checksums, and that it is a note of that name. A removed note costs a read as
//! well, as long as the log holds what removed it.

use super::Shared;
use super::format::{Address, Malformed, RECORD_NOTE, UnitView};
use super::reader::{LONGEST_HEAD, head, whole};
use super::window::{Direction, Windows};
use crate::error::Result;
use crate::journal::{EntityKey, NOTES, Read, Wait};
use std::sync::Arc;

/// Bytes read at once: a head and, mostly, the value behind it.
const SMALL: u64 = 1024;

/// Visits the durable notes that start with `prefix`, sorted by name.
pub(super) fn read_notes(shared: &Shared, prefix: &str, visit: &mut dyn FnMut(&str, &[u8]) -> Read) -> Result<()> {
    let kind: Arc<str> = Arc::from(NOTES);
    let mut after: Option<Arc<str>> = None;
    loop {
        let notes = shared.heads.lock().notes(prefix, after.as_deref());
        for (name, address) in &notes {
            let entity = EntityKey::new(Arc::clone(&kind), Arc::clone(name));
            let mut windows = Windows::new(shared, Wait::AsLongAsItTakes);
            let value = value(&mut windows, &entity, *address)?;
            if !value.is_empty() && visit(name, value) == Read::Enough {
                return Ok(());
            }
        }
        let Some((last, _)) = notes.last() else { return Ok(()) };
        after = Some(Arc::clone(last));
    }
}

fn value<'w>(windows: &'w mut Windows<'_>, entity: &EntityKey, address: Address) -> Result<&'w [u8]> {
    let window = windows.load(address, LONGEST_HEAD, SMALL, Direction::Forward)?;
    if head(windows, window, address, entity)?.is_none() {
        return Err(windows.corrupt(address, Malformed("the unit is another entity's")));
    }
    let window = whole(windows, address, window)?;
    let windows = &*windows;
    let corrupt = |malformed| windows.corrupt(address, malformed);
    let unit = UnitView::decode_again(windows.from(window, address)).map_err(corrupt)?;
    match unit.records().next() {
        Some(Ok(record)) if record.kind == RECORD_NOTE => Ok(record.payload),
        Some(Err(malformed)) => Err(corrupt(malformed)),
        _ => Err(corrupt(Malformed("the unit holds no note"))),
    }
}
