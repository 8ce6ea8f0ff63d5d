//! The memory journal's own stories: whatever was handed over comes back, and what it takes is little.

#![cfg(test)]

use ego_core::io::Door;
use ego_core::io::sim::SimDoor;
use ego_core::journal::{Content, EntityKey, Journal, Read, Record, StoredEvent, Unit, Wait};
use ego_core::memory::MemoryJournal;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// Cases of each property; `EGO_CASES` asks for another number.
fn config() -> ProptestConfig {
    let cases = std::env::var("EGO_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The events of one command: whose they are, what the clock says, and the type and size of each.
type Command = (usize, Option<u64>, Vec<(u32, usize)>);

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let size = prop_oneof![8 => 0_usize..40, 4 => 100_usize..300, 1 => 60_000_usize..70_000, 1 => Just(200_000)];
    let clock = prop_oneof![3 => Just(None), 1 => (0..1_u64 << 40).prop_map(Some)];
    let events = prop_oneof![4 => vec((0..5_u32, size.clone()), 1..=1), 1 => vec((0..5_u32, size), 2..6)];
    vec((0..4_usize, clock, events), 1..300)
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    id: String,
    revision: u64,
    position: u64,
    name: String,
    version: u32,
    payload: Vec<u8>,
}

impl Seen {
    fn of(id: &str, event: &StoredEvent<'_>) -> Self {
        let StoredEvent { revision, position, version, .. } = *event;
        let (id, name) = (id.to_owned(), event.name.to_owned());
        Self { id, revision, position, name, version, payload: event.payload.to_vec() }
    }
}

fn key(id: usize) -> EntityKey {
    EntityKey::new(Arc::from("Account"), Arc::from(format!("a-{id}")))
}

fn append(journal: &MemoryJournal, entity: &EntityKey, first_revision: u64, records: &[Record<'_>]) {
    let content = Content::Events(records);
    journal.append(&Unit { entity, first_revision, content, command: None, metadata: &[] }).unwrap();
}

fn of_entity(journal: &MemoryJournal, key: &EntityKey, from: u64) -> (Vec<Seen>, u64) {
    let mut seen = Vec::new();
    let last = journal.read_entity(key, from, Wait::AsLongAsItTakes, &mut |event| {
        seen.push(Seen::of(&key.id, &event));
        Read::More
    });
    (seen, last.unwrap())
}

/// Everything from a position, and the times.
fn from_position(journal: &MemoryJournal, from: u64) -> (Vec<Seen>, Vec<u64>) {
    let (mut seen, mut times) = (Vec::new(), Vec::new());
    let visit = &mut |key: &EntityKey, event: StoredEvent<'_>| {
        seen.push(Seen::of(&key.id, &event));
        times.push(event.time);
        Read::More
    };
    journal.read_from(from, visit).unwrap();
    (seen, times)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_handed_over_comes_back_from_every_revision_and_every_position(commands in commands()) {
        let door = SimDoor::new(1);
        let journal = MemoryJournal::new(Arc::new(door.clone()));
        let keys: Vec<_> = (0..4).map(key).collect();
        let mut revisions = [0_u64; 4];
        let (mut expected, mut times) = (Vec::<Seen>::new(), Vec::new());
        for (entity, clock, events) in &commands {
            if let Some(nanos) = clock {
                door.set_wall_nanos(*nanos);
            }
            let payloads: Vec<_> = events.iter().map(|&(_, size)| vec![(expected.len() + size) as u8; size]).collect();
            let names: Vec<_> = events.iter().map(|(of, _)| format!("type-{}", of / 2)).collect();
            let records: Vec<_> = events.iter().zip(&names).zip(&payloads)
                .map(|((&(of, _), name), payload)| Record { name, version: of % 2, payload }).collect();
            let first_revision = revisions[*entity] + 1;
            let earliest = door.wall_nanos();
            append(&journal, &keys[*entity], first_revision, &records);
            times.push((events.len(), earliest, door.wall_nanos()));
            for record in records {
                revisions[*entity] += 1;
                expected.push(Seen {
                    id: keys[*entity].id.to_string(),
                    revision: revisions[*entity],
                    position: expected.len() as u64 + 1,
                    name: record.name.to_owned(),
                    version: record.version,
                    payload: record.payload.to_vec(),
                });
            }
        }
        let all = expected.len();
        for from in [0, 1, 2, all / 3, all / 2, all - 1, all, all + 1] {
            let (seen, _) = from_position(&journal, from as u64);
            prop_assert_eq!(&seen, &expected[from.saturating_sub(1).min(all)..]);
        }
        let (_, seen) = from_position(&journal, 1);
        let (mut rest, mut before) = (&seen[..], 0);
        for (events, earliest, latest) in times {
            let unit;
            (unit, rest) = rest.split_at(events);
            let time = unit[0];
            prop_assert!(unit.iter().all(|of| *of == time), "the events of a command have one time");
            prop_assert!((earliest.max(before)..=latest.max(before)).contains(&time), "{time} is not when it happened");
            before = time;
        }
        for (key, &last) in keys.iter().zip(&revisions) {
            let own: Vec<_> = expected.iter().filter(|event| *event.id == *key.id).cloned().collect();
            for from in [1, 2, last / 2 + 1, last.max(1), last + 1] {
                let rest = own.get(from as usize - 1..).unwrap_or_default().to_vec();
                prop_assert_eq!(of_entity(&journal, key, from), (rest, last));
            }
        }
    }
}

#[test]
fn a_unit_larger_than_any_block_is_read_like_others() {
    let journal = MemoryJournal::new(Arc::new(SimDoor::new(1)));
    let large = vec![7; 40 << 20];
    for (first_revision, payload) in (1..).zip([b"before".as_slice(), &large, b"between", &large, b"after"]) {
        let records = [Record { name: "bank.credited", version: 1, payload }];
        append(&journal, &key(0), first_revision, &records);
    }
    let lengths = [6, 40 << 20, 7, 40 << 20, 5];
    for from in 1..=6 {
        let expected = lengths.get(from as usize - 1..).unwrap_or_default();
        let lengths = |seen: Vec<Seen>| seen.iter().map(|event| event.payload.len()).collect::<Vec<_>>();
        assert_eq!(lengths(of_entity(&journal, &key(0), from).0), expected);
        assert_eq!(lengths(from_position(&journal, from).0), expected);
    }
}

#[test]
fn a_visitor_may_use_the_journal() {
    let journal = MemoryJournal::new(Arc::new(SimDoor::new(1)));
    let store = |entity: &EntityKey, first_revision| {
        let records = [Record { name: "bank.credited", version: 1, payload: b"1" }];
        append(&journal, entity, first_revision, &records);
    };
    store(&key(0), 1);
    journal
        .read_entity(&key(0), 1, Wait::AsLongAsItTakes, &mut |event| {
            store(&key(1), event.revision);
            Read::More
        })
        .unwrap();
    let mut seen = 0;
    journal
        .read_from(1, &mut |of, event| {
            seen += 1;
            if *of == key(0) && event.revision < 3 {
                store(of, event.revision + 1);
            }
            Read::More
        })
        .unwrap();
    assert_eq!((seen, journal.stats().position), (4, 4));
}
