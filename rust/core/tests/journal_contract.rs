//! One contract, every journal: what an engine may expect of a store, told as stories over both kinds.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test looks at real files without the door")]

use ego_core::StoreError;
use ego_core::io::RealDoor;
use ego_core::journal::{EntityKey, Journal, Outcome, Read, Record, Ticket, Unit};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use std::path::Path;
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
        self.journal.append(&Unit { entity: key, first_revision, records: &records })
    }

    fn store(&self, key: &EntityKey, first_revision: u64, payloads: &[&[u8]]) {
        let ticket = self.append(key, first_revision, payloads).unwrap();
        let outcome = self.wait(ticket);
        assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
    }

    fn entity(&self, key: &EntityKey, from: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let mut seen = Vec::new();
        let last = self.journal.read_entity(key, from, &mut |event| {
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
        max_unit_bytes: 16 << 10,
        checkpoint_bytes: 100 << 10,
        ..LogOptions::default()
    }
}

fn on_every_store(story: impl Fn(&Store)) {
    story(&Store::new(Arc::new(MemoryJournal::new(Arc::new(RealDoor)))));
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
        let last = store.journal.read_entity(&key("a"), 1, &mut |_| {
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
    let refused = store.append(&key("a"), 1, &[&[7; 16 << 10]]);
    assert!(matches!(refused, Err(StoreError::TooLarge { cap: 16384, .. })), "{refused:?}");
    store.store(&key("a"), 1, &[&[7; 15 << 10]]);
    store.journal.close().unwrap();
}
