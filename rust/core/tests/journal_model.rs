//! Random programs of appends, reads and restarts over both journals, beside a model that keeps every unit in a list.
//!
//! `EGO_SIM_SEED` asks for another run, `EGO_PROGRAMS` for another number of programs. A failure names its seed.

#![cfg(test)]

use ego_core::io::sim::{Crash, SimDoor};
use ego_core::journal::{Command, Content, EntityKey, Journal, Outcome, Read, Record, StoredEvent, Ticket, Unit, Wait};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const STEPS: usize = 300;
const ENTITIES: u64 = 6;

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// An event, a state or a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    name: String,
    version: u32,
    payload: Vec<u8>,
}

impl Value {
    fn record(&self) -> Record<'_> {
        Record { name: &self.name, version: self.version, payload: &self.payload }
    }
}

/// What a reader is shown: entity, revision, position, value, metadata and whether it is a state.
type Shown = (u64, u64, u64, Value, Vec<u8>, bool);
/// What a reader is shown of a command: id, fingerprint, revision and rejection.
type Kept = (String, [u8; 16], u64, Option<Value>);

#[derive(Debug, Clone, Default)]
struct Model {
    shown: Vec<Shown>,
    commands: BTreeMap<u64, Vec<Kept>>,
    revisions: BTreeMap<u64, u64>,
}

impl Model {
    fn revision(&self, entity: u64) -> u64 {
        self.revisions.get(&entity).copied().unwrap_or(0)
    }

    fn of(&self, entity: u64, is_state: bool) -> impl DoubleEndedIterator<Item = &Shown> {
        self.shown.iter().filter(move |shown| shown.0 == entity && shown.5 == is_state)
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) % most
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let (len, fill) = (self.below(most) as usize, self.below(256) as u8);
        vec![fill; len]
    }

    fn value(&mut self) -> Value {
        let most = if self.below(12) == 0 { 9_000 } else { 60 };
        Value { name: format!("type-{}", self.below(9)), version: self.below(4) as u32, payload: self.bytes(most) }
    }
}

/// Where a journal comes from.
struct Place {
    door: SimDoor,
    options: Option<LogOptions>,
}

impl Place {
    fn open(&self) -> Arc<dyn Journal> {
        let door = Arc::new(self.door.clone());
        let journal: Arc<dyn Journal> = match self.options {
            Some(options) => Arc::new(Log::open(door, Path::new("/data/s"), options).unwrap()),
            None => Arc::new(MemoryJournal::new(door)),
        };
        let program = std::thread::current();
        journal.on_settled(Arc::new(move || program.unpark()));
        journal
    }

    /// Opens the store again, after an orderly end or a power cut; what is only in memory stays as it is.
    fn restart(&mut self, journal: Arc<dyn Journal>, cut: bool, seed: u64) -> Arc<dyn Journal> {
        if self.options.is_none() {
            return journal;
        }
        if cut {
            self.door.crash();
            drop(journal);
            self.door = self.door.after_crash(Crash::HARSH, seed);
        } else {
            journal.close().unwrap();
        }
        self.open()
    }
}

struct Program {
    seed: u64,
    chance: Chance,
    model: Model,
    journal: Arc<dyn Journal>,
    last: Ticket,
    appended: u64,
}

fn key(entity: u64) -> EntityKey {
    EntityKey::new(["left", "right"][entity as usize % 2].into(), format!("e-{}", entity / 2).into())
}

fn entity_of(key: &EntityKey) -> u64 {
    let number: u64 = key.id.trim_start_matches("e-").parse().unwrap();
    2 * number + u64::from(&*key.kind == "right")
}

fn shown(key: &EntityKey, event: &StoredEvent<'_>) -> Shown {
    let value = Value { name: event.name.to_owned(), version: event.version, payload: event.payload.to_vec() };
    (entity_of(key), event.revision, event.position, value, event.metadata.to_vec(), event.is_state)
}

impl Program {
    fn append(&mut self) {
        let entity = self.chance.below(ENTITIES);
        let is_state = self.chance.below(3) == 0;
        let count = if is_state { 1 } else { self.chance.below(4) as usize };
        let values: Vec<Value> = (0..count).map(|_| self.chance.value()).collect();
        let rejection = (self.chance.below(2) == 0).then(|| self.chance.value());
        let metadata = if self.chance.below(3) == 0 { self.chance.bytes(400) } else { Vec::new() };
        self.appended += 1;
        let (id, fingerprint) = (format!("c-{}", self.appended), [self.chance.below(256) as u8; 16]);
        let rejected = rejection.as_ref().map(Value::record);
        let command = Command { id: &id, fingerprint, rejection: rejected };
        let command = (values.is_empty() || self.chance.below(2) == 0).then_some(command);
        let records: Vec<Record<'_>> = values.iter().map(Value::record).collect();
        let content = if is_state { Content::State(records[0]) } else { Content::Events(&records) };
        let key = key(entity);
        let first_revision = self.model.revision(entity) + 1;
        let follows = self.chance.below(10) > 0;
        let first = if follows { first_revision } else { self.chance.below(2 * first_revision + 2) };
        let unit = Unit { entity: &key, first_revision: first, content, command, metadata: &metadata };
        let accepted = self.journal.append(&unit);
        if first != first_revision {
            return self.refused(accepted);
        }
        self.last = accepted.unwrap();
        for (value, n) in values.iter().zip(0..) {
            let position = self.model.shown.len() as u64 + 1;
            let seen = (entity, first_revision + n, position, value.clone(), metadata.clone(), is_state);
            self.model.shown.push(seen);
        }
        let revision = first_revision - 1 + count as u64;
        if count > 0 {
            self.model.revisions.insert(entity, revision);
        }
        if command.is_some() {
            self.model.commands.entry(entity).or_default().push((id, fingerprint, revision, rejection));
        }
    }

    fn refused(&mut self, accepted: ego_core::error::Result<Ticket>) {
        if let Ok(ticket) = accepted {
            self.settle(ticket);
            assert!(matches!(self.journal.outcome(ticket), Outcome::Refused(_)), "seed {}", self.seed);
        }
    }

    fn settle(&self, ticket: Ticket) {
        self.journal.kick();
        while self.journal.settled() < ticket {
            std::thread::park();
        }
    }

    fn compare(&mut self) {
        self.settle(self.last);
        let entity = self.chance.below(ENTITIES);
        let (key, last) = (key(entity), self.model.revision(entity));
        let from = 1 + self.chance.below(last + 2);
        let mut seen = Vec::new();
        let said = self.journal.read_entity(&key, from, Wait::AsLongAsItTakes, &mut |event| {
            seen.push(shown(&key, &event));
            Read::More
        });
        let expected: Vec<_> = self.model.of(entity, false).filter(|shown| shown.1 >= from).cloned().collect();
        assert_eq!((said.unwrap(), seen), (last, expected), "seed {}", self.seed);

        let at = if from > last { u64::MAX } else { from };
        let mut state = None;
        let said =
            self.journal.read_state(&key, at, Wait::AsLongAsItTakes, &mut |found| state = Some(shown(&key, &found)));
        let expected = self.model.of(entity, true).rfind(|shown| shown.1 <= at).cloned();
        assert_eq!((said.unwrap(), state), (last, expected), "seed {}", self.seed);

        let mut kept: Vec<Kept> = Vec::new();
        let visit = &mut |command: ego_core::journal::StoredCommand<'_>| {
            let rejection = command.rejection.map(|r| Value {
                name: r.name.to_owned(),
                version: r.version,
                payload: r.payload.to_vec(),
            });
            kept.push((command.id.to_owned(), command.fingerprint, command.revision, rejection));
            Read::More
        };
        self.journal.read_commands(&key, 0, Wait::AsLongAsItTakes, visit).unwrap();
        kept.reverse();
        assert_eq!(kept, self.model.commands.get(&entity).cloned().unwrap_or_default(), "seed {}", self.seed);

        let from = 1 + self.chance.below(self.model.shown.len() as u64 + 1);
        let mut seen = Vec::new();
        let visit = &mut |key: &EntityKey, event: StoredEvent<'_>| {
            seen.push(shown(key, &event));
            Read::More
        };
        self.journal.read_from(from, visit).unwrap();
        assert_eq!(seen, self.model.shown[from as usize - 1..], "seed {}", self.seed);
        let (position, entities) = (self.model.shown.len() as u64, self.model.revisions.len() as u64);
        let stats = self.journal.stats();
        assert_eq!((stats.position, stats.entities), (position, entities), "seed {}", self.seed);
    }
}

fn run(seed: u64, options: Option<LogOptions>) {
    let mut place = Place { door: SimDoor::new(seed), options };
    let (model, journal) = (Model::default(), place.open());
    let mut program = Program { seed, chance: Chance(seed), model, journal, last: 0, appended: 0 };
    for _ in 0..STEPS {
        match program.chance.below(40) {
            0 | 1 => {
                program.settle(program.last);
                let cut = program.chance.below(2) == 0;
                program.journal = place.restart(program.journal, cut, seed);
                if options.is_some() {
                    program.last = 0;
                }
                program.compare();
            }
            2..=5 => program.compare(),
            _ => program.append(),
        }
    }
    program.compare();
    program.journal.close().unwrap();
}

#[test]
fn a_random_program_over_a_journal_sees_what_the_model_says() {
    let (seed, cases) = (from_env("EGO_SIM_SEED", 1), from_env("EGO_PROGRAMS", 40));
    let log = |checkpoint_bytes| LogOptions {
        segment_bytes: 64 << 10,
        max_unit_bytes: 48 << 10,
        checkpoint_bytes,
        idle_mark_millis: 0,
        ..LogOptions::default()
    };
    for seed in (0..cases).map(|case| seed.wrapping_mul(1_000_003).wrapping_add(case)) {
        for options in [None, Some(log(64 << 20)), Some(log(3_000))] {
            run(seed, options);
        }
    }
}
