//! Reading without waiting for the disk, and the threads that read for those who may not wait.

#![cfg(test)]

use ego_core::StoreError;
use ego_core::entities::commands::{Commands, Retention};
use ego_core::history::Wanted;
use ego_core::io::sim::{Call, Held, Selector, SimDoor};
use ego_core::journal::{Command, Content, EntityKey, Journal, READ_AT_ONCE, Read, Record, Unit, Wait};
use ego_core::loader::{Load, Loader, Piece};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything here takes; a test that needs it has failed.
const LIMIT: Duration = Duration::from_secs(20);
const FOR_EVER: Retention = Retention { count: 256, age: u64::MAX };

fn key() -> EntityKey {
    EntityKey::new(Arc::from("Account"), Arc::from("a"))
}

fn log(door: &SimDoor) -> Arc<dyn Journal> {
    let options = LogOptions { idle_mark_millis: 0, ..LogOptions::default() };
    Arc::new(Log::open(Arc::new(door.clone()), Path::new("/data/s"), options).unwrap())
}

/// Adds units of one event each; the first one keeps its command.
fn write(journal: &dyn Journal, units: usize) {
    let (done, settled) = channel();
    let done = std::sync::Mutex::new(done);
    journal.on_settled(Arc::new(move || done.lock().unwrap().send(()).unwrap_or_default()));
    let mut last = 0;
    for first_revision in 1..=units as u64 {
        let content = Content::Events(&[Record { name: "E", version: 1, payload: b"payload" }]);
        let command = Command { id: "c-1", fingerprint: [1; 16], rejection: None };
        let command = (first_revision == 1).then_some(command);
        last = journal.append(&Unit { entity: &key(), first_revision, content, command, metadata: &[] }).unwrap();
    }
    journal.kick();
    while journal.settled() < last {
        settled.recv_timeout(LIMIT).unwrap();
    }
}

/// How many events a read visits, and what it says.
fn read(journal: &dyn Journal, from: u64, wait: Wait) -> (usize, Result<u64, StoreError>) {
    let mut seen = 0;
    let said = journal.read_entity(&key(), from, wait, &mut |_| {
        seen += 1;
        Read::More
    });
    (seen, said)
}

fn would_wait<T>(said: Result<T, StoreError>) -> bool {
    matches!(said, Err(StoreError::WouldWait))
}

/// A loader, and what it rings.
fn loader() -> (Loader, Receiver<()>) {
    let (ring, bell) = channel();
    let ring = std::sync::Mutex::new(ring);
    let loader = Loader::new();
    loader.on_ready(Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default()));
    (loader, bell)
}

/// Takes a reading to its end: its parts, and what the journal said.
fn all<T>(load: &Load<T>, bell: &Receiver<()>) -> (Vec<T>, Result<u64, StoreError>) {
    let mut parts = Vec::new();
    loop {
        match load.take() {
            Some(Piece::Part(part)) => parts.push(part),
            Some(Piece::End(said)) => return (parts, said),
            None => bell.recv_timeout(LIMIT).unwrap(),
        }
    }
}

fn held_reads(door: &SimDoor) -> Held {
    door.hold(Selector::call(Call::Read).by("ego-loader"))
}

#[test]
fn what_is_not_in_memory_is_refused_to_those_who_do_not_wait_and_read_by_others() {
    let door = SimDoor::new(7);
    write(&*log(&door), 3);
    let journal = log(&door);
    let (seen, said) = read(&*journal, 1, Wait::Never);
    assert!(seen == 0 && would_wait(said), "the segment is not open yet");
    assert_eq!(read(&*journal, 1, Wait::AsLongAsItTakes).1.unwrap(), 3);
    assert_eq!((3, 3), (read(&*journal, 1, Wait::Never).0, read(&*journal, 1, Wait::Never).1.unwrap()));
    door.set_cold(true);
    let (seen, said) = read(&*journal, 1, Wait::Never);
    assert!(seen == 0 && would_wait(said));
    assert!(would_wait(journal.read_state(&key(), 9, Wait::Never, &mut |_| ())));
    assert!(would_wait(journal.read_commands(&key(), 0, Wait::Never, &mut |_| Read::More)));
    assert_eq!(read(&*journal, 1, Wait::AsLongAsItTakes).1.unwrap(), 3);
}

#[test]
fn a_long_history_is_refused_to_those_who_do_not_wait_though_it_is_in_memory() {
    let door = SimDoor::new(7);
    for journal in [log(&door), Arc::new(MemoryJournal::new(Arc::new(door.clone())))] {
        write(&*journal, READ_AT_ONCE + 10);
        read(&*journal, 1, Wait::AsLongAsItTakes).1.unwrap();
        let (seen, said) = read(&*journal, 1, Wait::Never);
        assert!(seen == 0 && would_wait(said));
        assert!(would_wait(Commands::<()>::read(&*journal, &key(), 1, FOR_EVER, Wait::Never)));
        assert_eq!(Commands::<()>::read(&*journal, &key(), 1, FOR_EVER, Wait::AsLongAsItTakes).unwrap().len(), 1);
        // It goes on from where it was read to.
        let (seen, said) = read(&*journal, 100, Wait::Never);
        assert_eq!((seen, said.unwrap()), (READ_AT_ONCE + 10 - 99, READ_AT_ONCE as u64 + 10));
    }
}

#[test]
fn a_reading_gives_all_events_in_order_and_stays_a_few_pieces_ahead() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::new(SimDoor::new(7))));
    write(&*journal, 10_000);
    let (loader, bell) = loader();
    let load = loader.history(&journal, &key(), Wanted::Events { from: 3 }).unwrap();
    bell.recv_timeout(LIMIT).unwrap();
    assert_eq!(loader.next_ready(), Some(load.number()));
    let (chunks, said) = all(&load, &bell);
    assert_eq!(said.unwrap(), 10_000);
    let revisions: Vec<_> = chunks.iter().flat_map(|chunk| chunk.events().map(|event| event.revision)).collect();
    assert_eq!(revisions, (3..=10_000).collect::<Vec<_>>());
}

#[test]
fn a_reading_that_nobody_takes_from_waits_and_ends_with_its_taker_or_its_loader() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::new(SimDoor::new(7))));
    write(&*journal, 10_000);
    let (loader, bell) = loader();
    let start = || loader.history(&journal, &key(), Wanted::Events { from: 1 }).unwrap();
    // Two fill both threads; the third is read once they are gone.
    let (first, second, third) = (start(), start(), start());
    bell.recv_timeout(LIMIT).unwrap();
    drop((first, second));
    assert_eq!(all(&third, &bell).1.unwrap(), 10_000);
    let left = start();
    bell.recv_timeout(LIMIT).unwrap();
    loader.close();
    loader.close();
    assert!(loader.history(&journal, &key(), Wanted::Events { from: 1 }).is_err());
    drop(left);
}

#[test]
fn a_reading_that_was_left_is_ready_again_as_often_as_it_is_left() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::new(SimDoor::new(7))));
    write(&*journal, 10_000);
    let (loader, bell) = loader();
    let load = loader.history(&journal, &key(), Wanted::Events { from: 1 }).unwrap();
    bell.recv_timeout(LIMIT).unwrap();
    assert_eq!((loader.next_ready(), loader.next_ready()), (Some(load.number()), None));
    for _ in 0..2 {
        load.leave();
        bell.recv_timeout(LIMIT).unwrap();
        assert_eq!((loader.next_ready(), loader.next_ready()), (Some(load.number()), None));
    }
}

#[test]
fn a_slow_disk_holds_up_the_reading_and_not_its_taker() {
    let door = SimDoor::new(7);
    write(&*log(&door), 3);
    let journal = log(&door);
    let (loader, bell) = loader();
    let gate = held_reads(&door);
    let load = loader.history(&journal, &key(), Wanted::Events { from: 1 }).unwrap();
    assert!(gate.reached(1, LIMIT));
    assert!(load.take().is_none() && loader.next_ready().is_none());
    drop(gate);
    let (chunks, said) = all(&load, &bell);
    assert_eq!((chunks.len(), said.unwrap()), (1, 3));
}

#[test]
fn the_commands_of_an_entity_and_the_failure_of_a_read_are_given_as_well() {
    let door = SimDoor::new(7);
    write(&*log(&door), 3);
    let journal = log(&door);
    let (loader, bell) = loader();
    let (found, said) = all(&loader.commands::<()>(&journal, &key(), 1, FOR_EVER).unwrap(), &bell);
    assert_eq!((found.iter().map(Commands::len).collect::<Vec<_>>(), said.unwrap()), (vec![1], 0));
    journal.close().unwrap();
    let (chunks, said) = all(&loader.history(&journal, &key(), Wanted::Events { from: 1 }).unwrap(), &bell);
    assert!(chunks.is_empty() && matches!(said, Err(StoreError::Closed)));
}
