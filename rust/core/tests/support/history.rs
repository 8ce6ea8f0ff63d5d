//! The reference: which units were tried, what is known of each, and whether a store agrees.

use super::notes::Notes;
use ego_core::StoreError;
use ego_core::journal::{EntityKey, Journal, Read, StoredCommand, StoredEvent, Wait};
use std::collections::{BTreeMap, BTreeSet};
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

/// What a unit is made of, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// Its events, or its state alone.
    pub(crate) sizes: Vec<usize>,
    pub(crate) is_state: bool,
    pub(crate) metadata: usize,
    pub(crate) has_command: bool,
    pub(crate) rejection: Option<usize>,
}

impl Form {
    pub(crate) fn events(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), ..Self::default() }
    }

    pub(crate) fn state(size: usize) -> Self {
        Self { sizes: vec![size], is_state: true, ..Self::default() }
    }

    /// A command that is kept and changes nothing.
    pub(crate) fn command(rejection: Option<usize>) -> Self {
        Self { has_command: true, rejection, ..Self::default() }
    }

    /// The `n`-th of the sorts of units there are, of about these sizes.
    pub(crate) fn sort(n: usize, sizes: &[usize]) -> Self {
        let first = sizes.first().copied().unwrap_or(0);
        match n % 8 {
            0 | 4 => Self::events(sizes),
            1 | 5 => Self { metadata: 50, has_command: true, ..Self::events(sizes) },
            2 => Self::state(first),
            3 => Self { metadata: 9, ..Self::command(Some(first)) },
            6 => Self { has_command: true, metadata: 1, rejection: Some(0), ..Self::state(first) },
            _ => Self::command(None),
        }
    }
}

/// A unit that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) entity: usize,
    pub(crate) first: u64,
    pub(crate) form: Form,
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

/// The number that stands for the command of a unit among its records.
pub(crate) const COMMAND: usize = 1 << 12;
/// The same for its rejection.
pub(crate) const REJECTION: usize = COMMAND + 1;
/// The same for its metadata.
pub(crate) const METADATA: usize = COMMAND + 2;

/// A stored event, state or command, reduced to what identifies it.
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

/// The fingerprint of a unit's command.
pub(crate) fn fingerprint(attempt: usize) -> [u8; 16] {
    payload(attempt, COMMAND, 16).try_into().unwrap_or_default()
}

/// The stored version of a record.
pub(crate) fn version(attempt: usize) -> u32 {
    attempt as u32 % 5
}

#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) notes: Notes,
    run: u32,
}

impl History {
    /// A new run of the program.
    pub(crate) fn restart(&mut self) {
        self.run += 1;
    }

    pub(crate) fn attempt(&mut self, entity: usize, first: u64, form: Form) -> usize {
        self.attempts.push(Attempt { entity, first, form, fate: Fate::Open, run: self.run });
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
        if let Some(trouble) = broken {
            return Err(Unseen::Broken(trouble));
        }
        let commands = self.commands(journal)?;
        self.judge(&seen).and_then(|present| self.judge_fates(&present, &commands)).map_err(Unseen::Broken)?;
        self.compare_entities(journal, &seen)?;
        seen.extend(commands);
        Ok(seen)
    }

    /// What is stored of the commands, by entity and in the order of the calls.
    fn commands(&self, journal: &dyn Journal) -> Result<Vec<Seen>, Unseen> {
        let mut all = Vec::new();
        let tried: BTreeSet<usize> = self.attempts.iter().filter(|a| a.form.has_command).map(|a| a.entity).collect();
        for entity in tried {
            let mut seen: Vec<Seen> = Vec::new();
            let mut broken = None;
            let visit = &mut |command: StoredCommand<'_>| {
                let checked = self.recognise_command(entity, &command).and_then(|found| match seen.last() {
                    Some(after) if after.attempt == found.attempt => {
                        Err(Trouble::new(Sort::Duplicated, format!("command {} is there twice", found.attempt)))
                    }
                    Some(after) if after.attempt < found.attempt || after.time < found.time => {
                        Err(Trouble::wrong(format!("command {} stands before an earlier one", found.attempt)))
                    }
                    _ => Ok(found),
                });
                match checked {
                    Ok(found) => seen.push(found),
                    Err(trouble) => broken = Some(trouble),
                }
                if broken.is_some() { Read::Enough } else { Read::More }
            };
            journal.read_commands(&key(entity), 0, Wait::AsLongAsItTakes, visit).map_err(Unseen::Failed)?;
            if let Some(trouble) = broken {
                return Err(Unseen::Broken(trouble));
            }
            all.extend(seen.into_iter().rev());
        }
        Ok(all)
    }

    /// Which unit a command belongs to; everything stored of it must be as it was handed over.
    fn recognise_command(&self, entity: usize, command: &StoredCommand<'_>) -> Result<Seen, Trouble> {
        let wrong = |what: &str| Trouble::wrong(format!("command {} of entity {entity}: {what}", command.id));
        let id = command.id.strip_suffix(".command").and_then(|number| number.parse::<usize>().ok());
        let attempt = id.ok_or_else(|| wrong("nobody sent it"))?;
        let tried = self.attempts.get(attempt).ok_or_else(|| wrong("nobody sent it"))?;
        if tried.entity != entity || !tried.form.has_command {
            return Err(wrong("stands under another entity"));
        }
        let rejection = command.rejection.map(|r| (r.name.to_owned(), r.version, r.payload.to_vec()));
        let expected = tried
            .form
            .rejection
            .map(|size| (name(attempt, REJECTION), version(attempt), payload(attempt, REJECTION, size)));
        let revision = tried.first + tried.form.sizes.len() as u64 - 1;
        if command.fingerprint != fingerprint(attempt) || rejection != expected || command.revision != revision {
            return Err(wrong("is not what was sent"));
        }
        Ok(Seen { attempt, record: COMMAND, revision, position: 0, time: command.time })
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
        let size = *tried.form.sizes.get(record).ok_or_else(|| wrong(unknown))?;
        if *entity != key(tried.entity) {
            return Err(wrong("stands under another entity"));
        }
        if event.revision != tried.first + record as u64 {
            return Err(wrong(&format!("has revision {}", event.revision)));
        }
        let same = event.version == version(attempt) && event.payload == payload(attempt, record, size);
        let metadata = payload(attempt, METADATA, tried.form.metadata);
        if !same || event.is_state != tried.form.is_state || event.metadata != metadata {
            return Err(wrong("is not what was appended"));
        }
        Ok(Seen { attempt, record, revision: event.revision, position, time: event.time })
    }

    /// Whole units, once each, in the order of the calls; gives back how many records of each are there.
    fn judge(&self, seen: &[Seen]) -> Result<Vec<usize>, Trouble> {
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
        Ok(present)
    }

    /// All units that must be there and none that must not.
    fn judge_fates(&self, present: &[usize], commands: &[Seen]) -> Result<(), Trouble> {
        let commanded: BTreeSet<usize> = commands.iter().map(|command| command.attempt).collect();
        let mut missing = None;
        for (number, (attempt, records)) in self.attempts.iter().zip(present).enumerate() {
            let command = commanded.contains(&number);
            let there = *records > 0 || command;
            if there && (*records != attempt.form.sizes.len() || command != attempt.form.has_command) {
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
            let is_state = |seen: &&Seen| self.attempts[seen.attempt].form.is_state;
            for at in [middle, u64::MAX].into_iter().filter(|_| expected.iter().any(|seen| is_state(&seen))) {
                let mut found = None;
                let said = journal
                    .read_state(&who, at, Wait::AsLongAsItTakes, &mut |state| {
                        found = Some(self.recognise(&who, &state))
                    })
                    .map_err(Unseen::Failed)?;
                let found = found.transpose().map_err(Unseen::Broken)?;
                let latest = expected.iter().filter(is_state).rfind(|state| state.revision <= at);
                if said != last || found.as_ref() != latest {
                    return Err(wrong(format!(
                        "entity {entity} has another state at {at} than the whole ({said}, {last})"
                    )));
                }
            }
            for from in [1, middle] {
                let mut found = Vec::new();
                let mut broken = None;
                let said = journal
                    .read_entity(&who, from, Wait::AsLongAsItTakes, &mut |event| {
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
                let events = expected.iter().filter(|seen| !is_state(seen) && seen.revision >= from);
                if said != last || !found.iter().eq(events) {
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
