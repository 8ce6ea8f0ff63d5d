//! One entity from its last unit back, for what its newest units say: its durable state and its commands.
//!
//! Every unit on the way has been verified as far as it was needed: whose it is, and that it leads to the one after it. What
//! does not is an error with its place. Of the records those alone are read that are asked for.

use super::Shared;
use super::format::{Address, Malformed, UnitView, u32_at};
use super::reader::{CLOSE, Found, LARGE, LONGEST_HEAD, head, visit_unit, whole};
use super::window::{Direction, Windows};
use crate::error::{Result, StoreError};
use crate::journal::{EntityKey, Read, StoredCommand, StoredEvent, Wait};

/// Bytes read at once where an entity's units stand apart: a head and, mostly, the command behind it.
const SMALL: u64 = 1024;

/// A walk over the units of an entity, the last one first.
struct Backwards<'a> {
    windows: Windows<'a>,
    entity: &'a EntityKey,
    /// The entity's revision behind the unit that comes next.
    revision: u64,
    next: Address,
    /// The stretch in which the unit before was seen.
    window: usize,
    size: u64,
    direction: Direction,
}

impl<'a> Backwards<'a> {
    /// A walk over what is durable now.
    fn new(shared: &'a Shared, entity: &'a EntityKey, wait: Wait) -> Self {
        let head = shared.heads.lock().get(&entity.kind, &entity.id, entity.hash());
        let (revision, next) = head.map_or((0, Address::NONE), |head| (head.revision, head.address));
        let windows = Windows::new(shared, wait);
        Self { windows, entity, revision, next, window: 0, size: SMALL, direction: Direction::Forward }
    }

    fn step(&mut self) -> Result<Option<Found>> {
        let address = self.next;
        if address == Address::NONE {
            return Ok(None);
        }
        self.windows.pass()?;
        self.window = self.hold(self.window, address, LONGEST_HEAD, (self.size, self.direction))?;
        let (first_revision, last_revision, previous) = {
            let unit = self.unit(Found { address, window: self.window })?;
            (unit.first_revision(), unit.last_revision(), unit.previous())
        };
        if last_revision != self.revision {
            return Err(self.windows.corrupt(address, Malformed("the unit does not lead to the one after it")));
        }
        if previous >= address || (previous == Address::NONE && first_revision != 1) {
            return Err(self
                .windows
                .corrupt(address, Malformed("the unit does not say where the one before it stands")));
        }
        let close = address.segment == previous.segment && address.offset - previous.offset < CLOSE;
        (self.size, self.direction) = if close { (LARGE, Direction::Backward) } else { (SMALL, Direction::Forward) };
        (self.next, self.revision) = (previous, first_revision - 1);
        Ok(Some(Found { address, window: self.window }))
    }

    /// This stretch if it holds `least` bytes from an address on, else one that does, or holds as many as there are.
    fn hold(&mut self, window: usize, address: Address, least: u64, new: (u64, Direction)) -> Result<usize> {
        if self.windows.from(window, address).len() as u64 >= least {
            return Ok(window);
        }
        self.windows.load(address, least, new.0, new.1)
    }

    /// A unit that was stepped on, with as much behind its head as the stretch holds.
    fn unit(&self, found: Found) -> Result<UnitView<'_>> {
        let unit = head(&self.windows, found.window, found.address, self.entity)?;
        unit.ok_or_else(|| self.windows.corrupt(found.address, Malformed("the unit is another entity's")))
    }

    /// The same unit in a stretch that holds its command.
    fn with_command(&mut self, found: Found) -> Result<Found> {
        let Found { address, mut window } = found;
        let unit = self.unit(found)?;
        let (records, len, mut end) = (unit.command_records(), unit.len(), unit.head_len());
        for _ in 0..records {
            let least = len.min(end + size_of::<u32>()) as u64;
            window = self.hold(window, address, least, (SMALL, Direction::Forward))?;
            end = len.min(end + u32_at(self.windows.from(window, address), end) as usize);
        }
        window = self.hold(window, address, end as u64, (end as u64, Direction::Forward))?;
        Ok(Found { address, window })
    }

    fn corrupt(&self, found: Found) -> impl Fn(Malformed) -> StoreError {
        move |malformed| self.windows.corrupt(found.address, malformed)
    }
}

/// Visits the latest durable state of a version up to `at`; returns the last durable revision.
pub(super) fn read_state(
    shared: &Shared,
    entity: &EntityKey,
    at: u64,
    wait: Wait,
    visit: &mut dyn FnMut(StoredEvent<'_>),
) -> Result<u64> {
    let mut units = Backwards::new(shared, entity, wait);
    let last = units.revision;
    // What stands before the first revision are commands alone.
    while units.revision > 0
        && let Some(found) = units.step()?
    {
        let unit = units.unit(found)?;
        if !unit.is_state() || unit.first_revision() > at {
            continue;
        }
        let window = whole(&mut units.windows, found.address, found.window)?;
        let unit = UnitView::decode_again(units.windows.from(window, found.address)).map_err(units.corrupt(found))?;
        let mut shown = |state: StoredEvent<'_>| {
            visit(state);
            Read::More
        };
        visit_unit(&unit, 0, &mut shown).map_err(units.corrupt(found))?;
        break;
    }
    Ok(last)
}

/// Visits what is durable of the commands of an entity, the newest first, until a unit is older than `since`.
pub(super) fn read_commands(
    shared: &Shared,
    entity: &EntityKey,
    since: u64,
    wait: Wait,
    visit: &mut dyn FnMut(StoredCommand<'_>) -> Read,
) -> Result<()> {
    let mut units = Backwards::new(shared, entity, wait);
    while let Some(found) = units.step()? {
        let unit = units.unit(found)?;
        if unit.time() < since {
            break;
        }
        if unit.command_records() == 0 {
            continue;
        }
        let found = units.with_command(found)?;
        let command = units.unit(found)?.command().map_err(units.corrupt(found))?;
        if command.is_some_and(|command| visit(command) == Read::Enough) {
            break;
        }
    }
    Ok(())
}
