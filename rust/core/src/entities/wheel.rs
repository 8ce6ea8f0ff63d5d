//! When to look at which entity again: one hierarchical timer wheel for all of them.
//!
//! Time passes in ticks of a millisecond. An entry is due never before its time and at most one tick after it, and it
//! is taken by whoever looks next. Scheduling and taking cost the same however many entries there are and however far
//! away their times; a clock that jumps by years costs what one that jumps by a tick does. Entries leave in the order
//! of their ticks, and in no order within one.
//!
//! Who extends a deadline notes it elsewhere, looks when the entry of the old one is taken, and schedules again; so a
//! touch costs nothing here, and a key needs one entry alone. Who will not come back cancels. Memory is given back when
//! the last entry has left. A clock that goes back finds nothing due until it has caught up with itself.

#![expect(clippy::indexing_slicing, reason = "a link leads to an entry; one that does not is a bug, and must be loud")]

/// Nanoseconds of a tick.
pub const TICK: u64 = 1_000_000;

/// A slot of level n covers 64^n ticks; eight levels cover every tick that 64 bits of nanoseconds can name.
const LEVELS: usize = 8;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const NONE: u32 = u32::MAX;
/// An empty wheel keeps room for this many entries.
const KEPT: usize = 1024;
/// The entry before the first one of a slot: this and the number of the slot.
const HEADS: u32 = NONE - (LEVELS * SLOTS) as u32;

/// Names an entry that was not taken yet.
pub type Alarm = u32;

/// Keys, each with the time in nanoseconds at which it is due.
#[derive(Debug)]
pub struct Wheel<K> {
    /// Every entry of an earlier tick has been taken. The others agree with it in the bits above their level.
    tick: u64,
    /// A bit for each slot with an entry.
    occupied: [u64; LEVELS],
    /// The first entry of each slot.
    slots: [[u32; SLOTS]; LEVELS],
    entries: Vec<Entry<K>>,
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Entry<K> {
    at: u64,
    /// None where the entry is free.
    key: Option<K>,
    before: u32,
    next: u32,
}

/// The earliest slot with an entry, and its first tick.
struct First {
    level: usize,
    slot: usize,
    tick: u64,
}

impl<K> Wheel<K> {
    /// An empty wheel whose clock shows `now`.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            tick: now / TICK,
            occupied: [0; LEVELS],
            slots: [[NONE; SLOTS]; LEVELS],
            entries: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Has `key` taken once it is `at`; at the next look, if that has passed.
    pub fn schedule(&mut self, key: K, at: u64) -> Alarm {
        let entry = Entry { at, key: Some(key), before: NONE, next: NONE };
        let index = self.free;
        let index = if index == NONE {
            let index = u32::try_from(self.entries.len()).unwrap_or(NONE);
            assert!(index < HEADS, "a wheel has at most 2^32 - 513 entries");
            self.entries.push(entry);
            index
        } else {
            self.free = std::mem::replace(&mut self.entries[index as usize], entry).next;
            index
        };
        self.len += 1;
        self.link(index);
        index
    }

    /// Takes the key of an entry out before its time.
    pub fn cancel(&mut self, alarm: Alarm) -> Option<K> {
        let taken = self.entries.get_mut(alarm as usize)?.key.take()?;
        self.unlink(alarm);
        self.give_back(alarm);
        Some(taken)
    }

    /// Takes one key that is due, with the time it was scheduled for; to be called until there is none.
    ///
    /// What is scheduled for later than `now` is not due at `now`, so a caller may schedule again between two calls.
    pub fn take_due(&mut self, now: u64) -> Option<(K, u64)> {
        let now = now / TICK;
        while let Some(First { level, slot, tick }) = self.first().filter(|first| first.tick <= now) {
            self.tick = tick;
            if level == 0 {
                return self.take(slot);
            }
            self.occupied[level] &= !(1 << slot);
            let mut index = std::mem::replace(&mut self.slots[level][slot], NONE);
            while index != NONE {
                let next = self.entries[index as usize].next;
                self.link(index);
                index = next;
            }
        }
        self.tick = self.tick.max(now);
        None
    }

    /// When to look next, if ever: nothing is due before. It may be early by what a slot covers, and is never late.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.first()?.tick.checked_mul(TICK)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lowest level has the earliest entries: those of a higher one differ from `tick` in a higher bit.
    fn first(&self) -> Option<First> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = LEVEL_BITS * level as u32;
        let lap = self.tick >> shift >> LEVEL_BITS << LEVEL_BITS;
        Some(First { level, slot: slot as usize, tick: (lap | u64::from(slot)) << shift })
    }

    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let tick = entry.at.div_ceil(TICK).max(self.tick);
        let level = (u64::BITS - ((tick ^ self.tick) | 1).leading_zeros() - 1) / LEVEL_BITS;
        let slot = (tick >> (LEVEL_BITS * level)) as usize % SLOTS;
        let level = level as usize;
        let next = std::mem::replace(&mut self.slots[level][slot], index);
        (entry.before, entry.next) = (HEADS + (level * SLOTS + slot) as u32, next);
        if next != NONE {
            self.entries[next as usize].before = index;
        }
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { before, next, .. } = self.entries[index as usize];
        if next != NONE {
            self.entries[next as usize].before = before;
        }
        match before.checked_sub(HEADS) {
            None => self.entries[before as usize].next = next,
            Some(place) => {
                let (level, slot) = (place as usize / SLOTS, place as usize % SLOTS);
                self.slots[level][slot] = next;
                if next == NONE {
                    self.occupied[level] &= !(1 << slot);
                }
            }
        }
    }

    /// Takes the first entry of an occupied slot of the lowest level.
    fn take(&mut self, slot: usize) -> Option<(K, u64)> {
        let index = self.slots[0][slot];
        self.unlink(index);
        let entry = &mut self.entries[index as usize];
        let taken = entry.key.take().map(|key| (key, entry.at));
        self.give_back(index);
        taken
    }

    fn give_back(&mut self, index: u32) {
        self.entries[index as usize].next = self.free;
        self.free = index;
        self.len -= 1;
        if self.len == 0 && self.entries.capacity() > KEPT {
            self.entries = Vec::new();
            self.free = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_pointer_is_twenty_four_bytes() {
        assert_eq!(size_of::<Entry<std::sync::Arc<u64>>>(), 24);
    }

    #[test]
    fn places_are_used_again_and_given_back_at_the_end() {
        let mut wheel = Wheel::new(0);
        for key in 0..10_000u32 {
            wheel.schedule(key, u64::from(key) * TICK);
        }
        let room = wheel.entries.capacity();
        for now in 0..50_000 {
            let (key, at) = wheel.take_due(now * TICK).unwrap();
            wheel.schedule(key, at + 10_000 * TICK);
        }
        assert_eq!((wheel.entries.len(), wheel.entries.capacity()), (10_000, room));
        while wheel.take_due(u64::MAX).is_some() {}
        assert_eq!((wheel.len(), wheel.entries.capacity()), (0, 0));
    }
}
