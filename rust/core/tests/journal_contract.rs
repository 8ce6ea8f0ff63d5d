//! One contract, every journal: what an engine may expect of a store, told as stories over both kinds.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test looks at real files without the door")]

use ego_core::StoreError;
use ego_core::io::RealDoor;
use ego_core::journal::{
    Command, Content, EntityKey, Journal, MAX_METADATA_BYTES, Outcome, Read, Record, StoredCommand, StoredEvent,
    Ticket, Unit, Wait,
};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use ego_core::scripted::ScriptedJournal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

/// A journal with a bell that rings when tickets are settled.
struct Store {
    journal: Arc<dyn Journal>,
    bell: Mutex<Receiver<()>>,
}

impl Store {
    fn new(journal: Arc<dyn Journal>) -> Self {
        let (ring, bell) = channel();
        let ring = Mutex::new(ring);
        journal.on_settled(Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default()));
        Self { journal, bell: Mutex::new(bell) }
    }

    fn wait(&self, ticket: Ticket) -> Outcome {
        self.journal.kick();
        let bell = self.bell.lock().unwrap();
        while self.journal.settled() < ticket {
            bell.recv().unwrap();
        }
        self.journal.outcome(ticket)
    }

    fn append(&self, key: &EntityKey, first_revision: u64, payloads: &[&[u8]]) -> Result<Ticket, StoreError> {
        let records: Vec<_> =
            payloads.iter().map(|payload| Record { name: "bank.credited", version: 2, payload }).collect();
        self.journal.append(&unit(key, first_revision, Content::Events(&records)))
    }

    fn store_unit(&self, unit: &Unit<'_>) {
        let outcome = self.wait(self.journal.append(unit).unwrap());
        assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
    }

    /// Why a unit is refused, at once or by the committer.
    fn refusal(&self, unit: &Unit<'_>) -> StoreError {
        match self.journal.append(unit).map(|ticket| self.wait(ticket)) {
            Err(refusal) | Ok(Outcome::Refused(refusal)) => refusal,
            Ok(outcome) => panic!("{outcome:?}"),
        }
    }

    fn state(&self, key: &EntityKey, at: u64) -> Option<Shown> {
        let mut seen = None;
        let last = self.journal.read_state(key, at, Wait::AsLongAsItTakes, &mut |state| {
            assert!(seen.replace(Shown::of(key, &state)).is_none());
        });
        assert_eq!(last.unwrap(), self.journal.revision(key).unwrap());
        seen
    }

    fn commands(&self, key: &EntityKey, since: u64) -> Vec<Kept> {
        let mut seen = Vec::new();
        self.journal
            .read_commands(key, since, Wait::AsLongAsItTakes, &mut |command| {
                seen.push(Kept::of(&command));
                Read::More
            })
            .unwrap();
        assert!(seen.is_sorted_by(|a, b| a.time >= b.time && a.revision >= b.revision));
        seen
    }

    fn all(&self, from: u64) -> Vec<Shown> {
        let mut seen = Vec::new();
        let visit = &mut |key: &EntityKey, event: StoredEvent<'_>| {
            seen.push(Shown::of(key, &event));
            Read::More
        };
        self.journal.read_from(from, visit).unwrap();
        seen
    }

    fn store(&self, key: &EntityKey, first_revision: u64, payloads: &[&[u8]]) {
        let ticket = self.append(key, first_revision, payloads).unwrap();
        let outcome = self.wait(ticket);
        assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
    }

    fn entity(&self, key: &EntityKey, from: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let mut seen = Vec::new();
        let last = self.journal.read_entity(key, from, Wait::AsLongAsItTakes, &mut |event| {
            assert_eq!((event.name, event.version), ("bank.credited", 2));
            assert!(event.time > 0);
            seen.push((event.revision, event.position, event.payload.to_vec()));
            Read::More
        });
        assert_eq!(last.unwrap(), self.journal.revision(key).unwrap());
        seen
    }

    fn everything(&self, from: u64) -> Vec<(String, u64, u64, Vec<u8>)> {
        let mut seen = Vec::new();
        self.journal
            .read_from(from, &mut |key, event| {
                seen.push((key.id.to_string(), event.revision, event.position, event.payload.to_vec()));
                Read::More
            })
            .unwrap();
        seen
    }
}

/// A stored event or state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    id: String,
    revision: u64,
    position: u64,
    of: (String, u32),
    payload: Vec<u8>,
    metadata: Vec<u8>,
    is_state: bool,
}

impl Shown {
    fn of(key: &EntityKey, event: &StoredEvent<'_>) -> Self {
        Self {
            id: key.id.to_string(),
            revision: event.revision,
            position: event.position,
            of: (event.name.to_owned(), event.version),
            payload: event.payload.to_vec(),
            metadata: event.metadata.to_vec(),
            is_state: event.is_state,
        }
    }
}

/// What is stored of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    id: String,
    fingerprint: [u8; 16],
    revision: u64,
    time: u64,
    rejection: Option<(String, u32, Vec<u8>)>,
}

impl Kept {
    fn of(command: &StoredCommand<'_>) -> Self {
        let rejection = command.rejection.map(|r| (r.name.to_owned(), r.version, r.payload.to_vec()));
        let StoredCommand { id, fingerprint, revision, time, .. } = *command;
        Self { id: id.to_owned(), fingerprint, revision, time, rejection }
    }
}

fn unit<'a>(entity: &'a EntityKey, first_revision: u64, content: Content<'a>) -> Unit<'a> {
    Unit { entity, first_revision, content, command: None, metadata: &[] }
}

fn state(payload: &[u8]) -> Content<'_> {
    Content::State(Record { name: "bank.balance", version: 3, payload })
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(Arc::from("Account"), Arc::from(id))
}

fn log(path: &Path, options: LogOptions) -> Log {
    Log::open(Arc::new(RealDoor), path, options).unwrap()
}

/// Small segments, so that a short story rolls many times.
fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        max_unit_bytes: 20 << 10,
        checkpoint_bytes: 100 << 10,
        ..LogOptions::default()
    }
}

fn on_every_store(story: impl Fn(&Store)) {
    let memory = || Arc::new(MemoryJournal::new(Arc::new(RealDoor)));
    story(&Store::new(memory()));
    story(&Store::new(Arc::new(ScriptedJournal::new(memory(), Arc::default(), PathBuf::new()))));
    for options in [LogOptions::default(), small()] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(log(&dir.path().join("s"), options)));
        story(&store);
        store.journal.close().unwrap();
    }
}

#[test]
fn an_empty_store_holds_nothing() {
    on_every_store(|store| {
        assert_eq!(store.entity(&key("a"), 1), []);
        assert_eq!(store.everything(1), []);
        assert_eq!(store.journal.kinds_of("a"), Vec::<Arc<str>>::new());
        assert_eq!(store.journal.stats().position, 0);
    });
}

#[test]
fn the_events_of_an_entity_come_back_in_order_byte_for_byte() {
    on_every_store(|store| {
        store.store(&key("a"), 1, &[b"one"]);
        store.store(&key("b"), 1, &[b"", &[0xff; 3000]]);
        store.store(&key("a"), 2, &[b"two", b"three"]);
        let a = vec![(1, 1, b"one".to_vec()), (2, 4, b"two".to_vec()), (3, 5, b"three".to_vec())];
        assert_eq!(store.entity(&key("a"), 1), a);
        assert_eq!(store.entity(&key("a"), 3), a[2..]);
        assert_eq!(store.entity(&key("a"), 4), []);
        assert_eq!(store.entity(&key("b"), 1), [(1, 2, vec![]), (2, 3, vec![0xff; 3000])]);
        assert_eq!(store.everything(4).len(), 2);
        assert_eq!(store.everything(3)[0], ("b".to_owned(), 2, 3, vec![0xff; 3000]));
    });
}

#[test]
fn a_reader_stops_where_it_has_enough() {
    on_every_store(|store| {
        store.store(&key("a"), 1, &[b"1", b"2", b"3"]);
        let mut seen = 0;
        let last = store.journal.read_entity(&key("a"), 1, Wait::AsLongAsItTakes, &mut |_| {
            seen += 1;
            if seen == 2 { Read::Enough } else { Read::More }
        });
        assert_eq!((last.unwrap(), seen), (3, 2));
    });
}

#[test]
fn a_unit_that_does_not_follow_is_refused_and_the_next_right_one_is_stored() {
    on_every_store(|store| {
        store.store(&key("a"), 1, &[b"1"]);
        for wrong in [1, 3] {
            let refusal = match store.append(&key("a"), wrong, &[b"x"]) {
                Err(refusal) => refusal,
                Ok(ticket) => match store.wait(ticket) {
                    Outcome::Refused(refusal) => refusal,
                    outcome => panic!("{outcome:?}"),
                },
            };
            assert!(matches!(refusal, StoreError::Conflict { actual: 1, .. }), "{refusal:?}");
        }
        store.store(&key("a"), 2, &[b"2"]);
        assert_eq!(store.entity(&key("a"), 1).len(), 2);
    });
}

#[test]
fn kinds_share_ids_without_sharing_events() {
    on_every_store(|store| {
        let order = EntityKey::new(Arc::from("Order"), Arc::from("a"));
        store.store(&key("a"), 1, &[b"account"]);
        store.store(&order, 1, &[b"order"]);
        assert_eq!(store.journal.kinds_of("a"), [Arc::from("Account"), Arc::from("Order")]);
        assert_eq!(store.entity(&order, 1), [(1, 2, b"order".to_vec())]);
    });
}

#[test]
fn many_units_in_flight_are_settled_in_order() {
    on_every_store(|store| {
        let keys: Vec<_> = (0..50).map(|n| key(&format!("entity-{n}"))).collect();
        let mut last = 0;
        for revision in 1..=100 {
            for key in &keys {
                let payload = format!("{}/{revision}", key.id);
                let ticket = store.append(key, revision, &[payload.as_bytes()]).unwrap();
                assert_eq!(ticket, last + 1);
                last = ticket;
            }
            store.journal.kick();
        }
        assert!(matches!(store.wait(last), Outcome::Stored));
        assert!((1..=last).all(|ticket| matches!(store.journal.outcome(ticket), Outcome::Stored)));
        for key in &keys {
            let events = store.entity(key, 1);
            assert!(events.iter().zip(1..).all(|((revision, _, payload), n)| {
                *revision == n && *payload == format!("{}/{n}", key.id).into_bytes()
            }));
            assert_eq!(events.len(), 100);
        }
        let positions: Vec<_> = store.everything(1).into_iter().map(|event| event.2).collect();
        assert_eq!(positions, (1..=5000).collect::<Vec<_>>());
    });
}

#[test]
fn writers_on_several_threads_lose_nothing() {
    on_every_store(|store| {
        std::thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    let key = key(&format!("writer-{writer}"));
                    let mut last = 0;
                    for revision in 1..=500 {
                        last = store.append(&key, revision, &[&[writer; 40]]).unwrap();
                        store.journal.kick();
                    }
                    assert!(matches!(store.wait(last), Outcome::Stored));
                });
            }
        });
        assert_eq!(store.everything(1).len(), 2000);
    });
}

#[test]
fn the_latest_state_is_read_and_an_older_one_is_still_found() {
    on_every_store(|store| {
        let (a, b) = (key("a"), key("b"));
        assert_eq!(store.state(&a, u64::MAX), None);
        for version in 1..=60 {
            store.store_unit(&unit(&a, version, state(&vec![version as u8; 3000])));
            if version % 20 == 0 {
                store.store_unit(&unit(&b, version / 20, state(b"")));
            }
        }
        for (at, version) in [(u64::MAX, 60), (60, 60), (59, 59), (17, 17), (1, 1)] {
            let seen = store.state(&a, at).unwrap();
            assert_eq!((seen.revision, seen.payload, seen.is_state), (version, vec![version as u8; 3000], true));
            assert_eq!(seen.of, ("bank.balance".to_owned(), 3));
        }
        assert_eq!(store.state(&a, 0), None);
        assert_eq!(store.state(&b, 2).map(|seen| (seen.revision, seen.position)), Some((2, 42)));
        assert_eq!((store.journal.stats().entities, store.journal.stats().position), (2, 63));
        assert_eq!(store.journal.kinds_of("a"), [Arc::from("Account")]);
        assert_eq!(store.all(1).iter().map(|state| state.position).collect::<Vec<_>>(), (1..=63).collect::<Vec<_>>());
    });
}

#[test]
fn a_state_of_another_version_than_the_next_is_refused_and_the_stored_one_stays() {
    on_every_store(|store| {
        let a = key("a");
        store.store_unit(&unit(&a, 1, state(b"one")));
        store.store_unit(&unit(&a, 2, state(b"two")));
        for wrong in [1, 2, 4] {
            let refusal = store.refusal(&unit(&a, wrong, state(b"x")));
            assert!(matches!(refusal, StoreError::Conflict { actual: 2, .. }), "{refusal:?}");
        }
        assert_eq!(store.state(&a, u64::MAX).map(|seen| (seen.revision, seen.payload)), Some((2, b"two".to_vec())));
        store.store_unit(&unit(&a, 3, state(b"three")));
        assert_eq!(store.state(&a, u64::MAX).map(|seen| seen.revision), Some(3));
    });
}

#[test]
fn events_and_states_of_one_entity_are_passed_over_by_the_readers_of_the_other() {
    on_every_store(|store| {
        let a = key("a");
        store.store(&a, 1, &[b"1", b"2"]);
        store.store_unit(&unit(&a, 3, state(b"3")));
        store.store(&a, 4, &[b"4"]);
        let revisions = |from| store.entity(&a, from).into_iter().map(|event| event.0).collect::<Vec<_>>();
        assert_eq!((revisions(1), revisions(2), revisions(3)), (vec![1, 2, 4], vec![2, 4], vec![4]));
        assert_eq!(store.state(&a, u64::MAX).map(|seen| seen.revision), Some(3));
        assert_eq!(store.state(&a, 2), None);
        let shapes: Vec<_> = store.all(2).into_iter().map(|seen| (seen.position, seen.is_state)).collect();
        assert_eq!(shapes, [(2, false), (3, true), (4, false)]);
    });
}

#[test]
fn a_command_is_kept_with_what_it_changed_and_found_again_newest_first() {
    on_every_store(|store| {
        let (a, events) = (key("a"), [Record { name: "bank.credited", version: 2, payload: b"1" }; 2]);
        let refused = Record { name: "bank.overdrawn", version: 7, payload: &[9; 2000] };
        let command = |id, fingerprint, rejection| Some(Command { id, fingerprint: [fingerprint; 16], rejection });
        let none = Content::Events(&[]);
        store.store_unit(&Unit { command: command("c-1", 1, None), ..unit(&a, 1, Content::Events(&events)) });
        store.store_unit(&Unit { command: command("c-2", 2, Some(refused)), ..unit(&a, 3, none) });
        store.store_unit(&Unit { command: command("c-3", 3, None), ..unit(&a, 3, none) });
        store.store(&a, 3, &[b"3"]);
        store.store_unit(&Unit { command: command(&"c".repeat(255), 4, None), ..unit(&a, 4, state(b"4")) });
        let kept = store.commands(&a, 0);
        let names: Vec<_> = kept.iter().map(|c| (c.id.len(), c.fingerprint[0], c.revision)).collect();
        assert_eq!(names, [(255, 4, 4), (3, 3, 2), (3, 2, 2), (3, 1, 2)]);
        let reasons: Vec<_> = kept.iter().map(|command| command.rejection.clone()).collect();
        assert_eq!(reasons, [None, None, Some(("bank.overdrawn".to_owned(), 7, vec![9; 2000])), None]);
        assert_eq!(store.entity(&a, 1).len(), 3);
        assert_eq!(store.all(1).iter().map(|seen| seen.position).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let mut seen = 0;
        let visit = &mut |_: StoredCommand<'_>| {
            seen += 1;
            if seen == 2 { Read::Enough } else { Read::More }
        };
        store.journal.read_commands(&a, 0, Wait::AsLongAsItTakes, visit).unwrap();
        assert_eq!(seen, 2);
        assert_eq!(store.commands(&key("b"), 0), []);
    });
}

#[test]
fn an_entity_of_commands_alone_is_not_stored_and_its_commands_are_found() {
    on_every_store(|store| {
        let (a, none) = (key("a"), Content::Events(&[]));
        let command = |id| Some(Command { id, fingerprint: [0; 16], rejection: None });
        store.store_unit(&Unit { command: command("c-1"), ..unit(&a, 1, none) });
        store.store_unit(&Unit { command: command("c-2"), ..unit(&a, 1, none) });
        let refusal = store.refusal(&Unit { command: command("c-3"), ..unit(&a, 2, none) });
        assert!(matches!(refusal, StoreError::Conflict { actual: 0, .. }), "{refusal:?}");
        assert_eq!((store.journal.revision(&a).unwrap(), store.journal.stats().entities), (0, 0));
        assert_eq!(store.journal.kinds_of("a"), Vec::<Arc<str>>::new());
        assert_eq!((store.entity(&a, 1), store.state(&a, u64::MAX), store.all(1)), (vec![], None, vec![]));
        let ids = || store.commands(&a, 0).into_iter().map(|c| (c.id, c.revision)).collect::<Vec<_>>();
        assert_eq!(ids(), [("c-2".to_owned(), 0), ("c-1".to_owned(), 0)]);
        store.store(&a, 1, &[b"first"]);
        assert_eq!((store.entity(&a, 1), ids().len()), (vec![(1, 1, b"first".to_vec())], 2));
        assert_eq!(store.journal.stats().entities, 1);
    });
}

#[test]
fn readers_go_on_over_long_stretches_of_commands_that_changed_nothing() {
    on_every_store(|store| {
        let (a, b, metadata) = (key("a"), key("b"), [4; 5000]);
        let command = Some(Command { id: "c", fingerprint: [0; 16], rejection: None });
        store.store(&a, 1, &[b"before"]);
        for n in 0..60 {
            let (entity, first) = if n % 2 == 0 { (&a, 2) } else { (&b, 1) };
            store.store_unit(&Unit { command, metadata: &metadata, ..unit(entity, first, Content::Events(&[])) });
        }
        store.store(&a, 2, &[b"behind"]);
        assert_eq!(store.entity(&a, 1), [(1, 1, b"before".to_vec()), (2, 2, b"behind".to_vec())]);
        assert_eq!(store.entity(&a, 2).len(), 1);
        assert_eq!((store.all(1).len(), store.all(2).len()), (2, 1));
        assert_eq!((store.commands(&a, 0).len(), store.commands(&b, 0).len()), (30, 30));
    });
}

#[test]
fn commands_are_read_until_they_are_too_old() {
    on_every_store(|store| {
        let (a, payload) = (key("a"), [5; 300]);
        let rejection = Some(Record { name: "no", version: 1, payload: &payload });
        for n in 0..500 {
            let id = format!("c-{n}");
            let command = Some(Command { id: &id, fingerprint: [n as u8; 16], rejection });
            store.store_unit(&Unit { command, ..unit(&a, 1 + n / 3, Content::Events(&[])) });
            if n % 3 == 2 {
                store.store_unit(&unit(&a, 1 + n / 3, state(&vec![1; 10_000 * usize::from(n % 60 == 2)])));
            }
        }
        let all = store.commands(&a, 0);
        let ids: Vec<_> = all.iter().map(|command| command.id.clone()).collect();
        assert_eq!(ids, (0..500).rev().map(|n| format!("c-{n}")).collect::<Vec<_>>());
        for since in [0, 1, 200, 499].map(|n: usize| all[n].time) {
            let young: Vec<_> = all.iter().filter(|command| command.time >= since).cloned().collect();
            assert_eq!(store.commands(&a, since), young);
        }
        assert_eq!(store.commands(&a, u64::MAX), []);
    });
}

#[test]
fn the_metadata_of_a_unit_is_shown_with_all_that_it_holds() {
    on_every_store(|store| {
        let (a, long) = (key("a"), [3; MAX_METADATA_BYTES]);
        let events = [Record { name: "bank.credited", version: 2, payload: b"1" }; 3];
        let command = Some(Command { id: "c", fingerprint: [1; 16], rejection: Some(events[0]) });
        store.store_unit(&Unit { metadata: b"trace", ..unit(&a, 1, Content::Events(&events)) });
        store.store(&a, 4, &[b"4"]);
        store.store_unit(&Unit { metadata: &long, command, ..unit(&a, 5, Content::Events(&events[..2])) });
        store.store_unit(&Unit { metadata: b"state", command, ..unit(&a, 7, state(b"7")) });
        store.store_unit(&Unit { metadata: b"gone", command, ..unit(&a, 8, Content::Events(&[])) });
        let expected: [&[u8]; 7] = [b"trace", b"trace", b"trace", b"", &long, &long, b"state"];
        for from in 1..=7 {
            let seen: Vec<_> = store.all(from).into_iter().map(|seen| seen.metadata).collect();
            assert_eq!(seen, expected[from as usize - 1..]);
            let mut of_entity = Vec::new();
            let visit = &mut |event: StoredEvent<'_>| {
                of_entity.push(event.metadata.to_vec());
                Read::More
            };
            store.journal.read_entity(&a, from, Wait::AsLongAsItTakes, visit).unwrap();
            assert_eq!(of_entity, expected[from as usize - 1..6.max(from as usize - 1)]);
        }
        assert_eq!(store.state(&a, u64::MAX).unwrap().metadata, b"state");
        let refusal = store.refusal(&Unit { metadata: &[0; MAX_METADATA_BYTES + 1], ..unit(&a, 8, state(b"8")) });
        assert!(matches!(refusal, StoreError::TooLarge { size: 16385, cap: 16384, .. }), "{refusal:?}");
    });
}

#[test]
fn a_log_closed_and_opened_again_holds_the_same_and_goes_on() {
    for options in [LogOptions::default(), small()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut expected = Vec::new();
        for round in 1..=5 {
            let store = Store::new(Arc::new(log(&path, options)));
            assert_eq!(store.everything(1), expected);
            for n in 0..40 {
                store.store(&key(&format!("{n}")), round, &[&vec![round as u8; 700]]);
            }
            expected = store.everything(1);
            assert_eq!(expected.len() as u64, round * 40);
            store.journal.close().unwrap();
            assert!(matches!(store.append(&key("a"), 1, &[b"x"]), Err(StoreError::Closed)));
        }
        // Every derived file may go: the answers stay.
        for name in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
            if name.extension().is_some_and(|e| e == "idx") || name.ends_with("checkpoint") {
                std::fs::remove_file(name).unwrap();
            }
        }
        let store = Store::new(Arc::new(log(&path, options)));
        assert_eq!(store.everything(1), expected);
        assert_eq!(store.entity(&key("7"), 1).len(), 5);
        store.journal.close().unwrap();
    }
}

#[test]
fn a_second_opening_is_refused_with_the_owner_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let first = log(&path, LogOptions::default());
    let second = Log::open(Arc::new(RealDoor), &path, LogOptions::default());
    let owner = std::process::id();
    assert!(matches!(second, Err(StoreError::Locked { pid: Some(pid), .. }) if pid == owner), "{second:?}");
    first.close().unwrap();
    log(&path, LogOptions::default()).close().unwrap();
}

#[test]
fn a_new_store_is_small_and_opens_fast() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = log(&path, LogOptions::default());
    assert!(store.opened().created);
    let bytes: u64 = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 2 << 20, "{bytes}");
    store.close().unwrap();
}

#[test]
fn what_is_not_a_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    let refused = |path: &Path| Log::open(Arc::new(RealDoor), path, LogOptions::default()).unwrap_err();
    assert!(matches!(refused(&file), StoreError::Format { .. }));
    assert!(matches!(refused(dir.path()), StoreError::Format { .. }));
    assert!(matches!(refused(&dir.path().join("missing/s")), StoreError::Format { .. }));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_unit_over_the_cap_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(Arc::new(log(&dir.path().join("s"), small())));
    let refused = store.append(&key("a"), 1, &[&[7; 20 << 10]]);
    assert!(matches!(refused, Err(StoreError::TooLarge { cap: 20480, .. })), "{refused:?}");
    store.store(&key("a"), 1, &[&[7; 19 << 10]]);
    store.journal.close().unwrap();
}
