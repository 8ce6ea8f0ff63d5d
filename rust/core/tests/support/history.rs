//! The reference: which units were tried, what is known of each, and whether a store agrees.

use ego_core::StoreError;
use ego_core::journal::{EntityKey, Journal, Read, StoredEvent};
use std::collections::BTreeMap;
use std::fmt;

/// What is known of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// Handed over; nothing is known yet.
    Open,
    /// Acknowledged, or shown by a read: it must be there for ever.
    Stored,
    /// Refused, or seen to be absent after a restart: it must never be there.
    Gone,
    /// It may be there or not.
    Unknown,
}

/// A unit that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) entity: usize,
    pub(crate) first: u64,
    pub(crate) sizes: Vec<usize>,
    pub(crate) fate: Fate,
    run: u32,
}

/// The sort of a disagreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Lost,
    Duplicated,
    Hung,
    Wrong,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) sort: Sort,
    pub(crate) what: String,
}

impl Trouble {
    pub(crate) fn new(sort: Sort, what: impl Into<String>) -> Self {
        Self { sort, what: what.into() }
    }

    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::new(Sort::Wrong, what)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.sort, self.what)
    }
}

/// Why a comparison gave no answer.
#[derive(Debug)]
pub(crate) enum Unseen {
    /// The store could not be read.
    Failed(StoreError),
    /// It could be read and is wrong.
    Broken(Trouble),
}

/// A stored event, reduced to what identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    attempt: usize,
    record: usize,
    revision: u64,
    position: u64,
    time: u64,
}

/// Who entity `n` is.
pub(crate) fn key(n: usize) -> EntityKey {
    if n >= LONG_NAMES {
        return EntityKey::new("k".repeat(255).into(), format!("{n:0>255}").into());
    }
    EntityKey::new(["left", "right"][n % 2].into(), format!("e-{n}").into())
}

/// Entities from this number on have names as long as they may be.
pub(crate) const LONG_NAMES: usize = 1_000;

/// The bytes of a record: a function of what it is.
pub(crate) fn payload(attempt: usize, record: usize, size: usize) -> Vec<u8> {
    let mut state = (attempt as u64) << 16 | record as u64 | 1 << 60;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state ^ state >> 29).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(size);
    bytes
}

/// The stored name of a record, which says which one it is.
pub(crate) fn name(attempt: usize, record: usize) -> String {
    format!("{attempt}.{record}")
}

/// The stored version of a record.
pub(crate) fn version(attempt: usize) -> u32 {
    attempt as u32 % 5
}

#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) attempts: Vec<Attempt>,
    run: u32,
}

impl History {
    /// A new run of the program.
    pub(crate) fn restart(&mut self) {
        self.run += 1;
    }

    pub(crate) fn attempt(&mut self, entity: usize, first: u64, sizes: &[usize]) -> usize {
        self.attempts.push(Attempt { entity, first, sizes: sizes.to_vec(), fate: Fate::Open, run: self.run });
        self.attempts.len() - 1
    }

    pub(crate) fn set(&mut self, attempt: usize, fate: Fate) {
        if let Some(attempt) = self.attempts.get_mut(attempt) {
            attempt.fate = fate;
        }
    }

    /// Reads the whole store and compares it with what is known.
    pub(crate) fn compare(&self, journal: &dyn Journal) -> Result<Vec<Seen>, Unseen> {
        let mut seen = Vec::new();
        let mut broken = None;
        let mut time = 0;
        let visit = &mut |entity: &EntityKey, event: StoredEvent<'_>| {
            let checked = self.recognise(entity, &event).and_then(|found| {
                if event.time < time {
                    return Err(Trouble::wrong(format!("time runs backwards at position {}", event.position)));
                }
                Ok(found)
            });
            time = event.time;
            match checked {
                Ok(found) => seen.push(found),
                Err(trouble) => broken = Some(trouble),
            }
            if broken.is_some() { Read::Enough } else { Read::More }
        };
        journal.read_from(1, visit).map_err(Unseen::Failed)?;
        let trouble = broken.or_else(|| self.judge(&seen).err());
        if let Some(trouble) = trouble {
            return Err(Unseen::Broken(trouble));
        }
        self.compare_entities(journal, &seen)?;
        Ok(seen)
    }

    /// Which record of which unit an event is; everything stored of it must be as it was handed over.
    fn recognise(&self, entity: &EntityKey, event: &StoredEvent<'_>) -> Result<Seen, Trouble> {
        let (StoredEvent { position, name: known_as, .. }, unknown) = (*event, "an event that nobody appended");
        let wrong = |what: &str| Trouble::wrong(format!("position {position}, event {known_as}: {what}"));
        let (attempt, record) = known_as.split_once('.').ok_or_else(|| wrong(unknown))?;
        let (Ok(attempt), Ok(record)) = (attempt.parse::<usize>(), record.parse::<usize>()) else {
            return Err(wrong(unknown));
        };
        let tried = self.attempts.get(attempt).ok_or_else(|| wrong(unknown))?;
        let size = *tried.sizes.get(record).ok_or_else(|| wrong(unknown))?;
        if *entity != key(tried.entity) {
            return Err(wrong("stands under another entity"));
        }
        if event.revision != tried.first + record as u64 {
            return Err(wrong(&format!("has revision {}", event.revision)));
        }
        if event.version != version(attempt) || event.payload != payload(attempt, record, size) {
            return Err(wrong("is not what was appended"));
        }
        Ok(Seen { attempt, record, revision: event.revision, position, time: event.time })
    }

    /// Whole units, once each, in the order of the calls, all that must be there and none that must not.
    fn judge(&self, seen: &[Seen]) -> Result<(), Trouble> {
        let mut present = vec![0; self.attempts.len()];
        let mut revisions = BTreeMap::new();
        let mut before: Option<&Seen> = None;
        for (event, position) in seen.iter().zip(1..) {
            let Seen { attempt, record, revision, .. } = *event;
            if event.position != position {
                return Err(Trouble::wrong(format!("position {} stands where {position} belongs", event.position)));
            }
            if before.is_some_and(|before| before.attempt == attempt && before.record >= record) || {
                record == 0 && present[attempt] > 0
            } {
                return Err(Trouble::new(Sort::Duplicated, format!("unit {attempt} is there twice")));
            }
            if before.is_some_and(|before| before.attempt > attempt) {
                return Err(Trouble::wrong(format!("unit {attempt} stands behind a later one")));
            }
            if present[attempt] != record {
                return Err(Trouble::wrong(format!("unit {attempt} is not whole")));
            }
            present[attempt] += 1;
            let last = revisions.insert(self.attempts[attempt].entity, revision).unwrap_or(0);
            if revision != last + 1 {
                return Err(Trouble::wrong(format!("unit {attempt} has revision {revision} after {last}")));
            }
            before = Some(event);
        }
        self.judge_fates(&present)
    }

    fn judge_fates(&self, present: &[usize]) -> Result<(), Trouble> {
        let mut missing = None;
        for (number, (attempt, records)) in self.attempts.iter().zip(present).enumerate() {
            let there = *records > 0;
            if there && *records != attempt.sizes.len() {
                return Err(Trouble::wrong(format!("unit {number} is there in part")));
            }
            match attempt.fate {
                Fate::Stored if !there => {
                    return Err(Trouble::new(Sort::Lost, format!("unit {number} was acknowledged or shown")));
                }
                Fate::Gone if there => {
                    return Err(Trouble::wrong(format!(
                        "unit {number} was refused or seen to be absent, and is there"
                    )));
                }
                Fate::Open | Fate::Unknown if !there => missing = Some((attempt.run, number)),
                _ => {}
            }
            if there && missing.is_some_and(|(run, _)| run == attempt.run) {
                let (_, gap) = missing.unwrap_or_default();
                return Err(Trouble::wrong(format!("unit {number} is there, and unit {gap} before it is not")));
            }
        }
        Ok(())
    }

    /// What entities say of themselves agrees with the whole.
    fn compare_entities(&self, journal: &dyn Journal, seen: &[Seen]) -> Result<(), Unseen> {
        let wrong = |what: String| Unseen::Broken(Trouble::wrong(what));
        let mut entities: BTreeMap<usize, Vec<Seen>> = self.attempts.iter().map(|a| (a.entity, Vec::new())).collect();
        for event in seen {
            entities.entry(self.attempts[event.attempt].entity).or_default().push(event.clone());
        }
        for (entity, expected) in &entities {
            let who = key(*entity);
            let last = expected.len() as u64;
            let middle = last / 2 + 1;
            for from in [1, middle] {
                let mut found = Vec::new();
                let mut broken = None;
                let said = journal
                    .read_entity(&who, from, &mut |event| {
                        match self.recognise(&who, &event) {
                            Ok(event) => found.push(event),
                            Err(trouble) => broken = Some(trouble),
                        }
                        Read::More
                    })
                    .map_err(Unseen::Failed)?;
                if let Some(trouble) = broken {
                    return Err(Unseen::Broken(trouble));
                }
                if said != last || Some(found.as_slice()) != expected.get(from as usize - 1..) {
                    return Err(wrong(format!(
                        "entity {entity} read from {from} differs from the whole ({said}, {last})"
                    )));
                }
            }
            if journal.revision(&who).map_err(Unseen::Failed)? != last {
                return Err(wrong(format!("entity {entity} has another revision than {last}")));
            }
            if journal.kinds_of(&who.id).contains(&who.kind) != (last > 0) {
                return Err(wrong(format!("entity {entity} is listed and has no event, or the other way round")));
            }
        }
        let stats = journal.stats();
        let known = entities.values().filter(|events| !events.is_empty()).count() as u64;
        if stats.position != seen.len() as u64 || stats.entities != known {
            return Err(wrong(format!("stats differ from {} events of {known} entities: {stats:?}", seen.len())));
        }
        Ok(())
    }

    /// What a reader was shown must stay. After a restart, what is absent must stay absent.
    pub(crate) fn learn(&mut self, seen: &[Seen], restarted: bool) {
        let mut present = vec![false; self.attempts.len()];
        seen.iter().for_each(|event| present[event.attempt] = true);
        for (attempt, there) in self.attempts.iter_mut().zip(present) {
            if there {
                attempt.fate = Fate::Stored;
            } else if restarted {
                attempt.fate = Fate::Gone;
            }
        }
    }
}
