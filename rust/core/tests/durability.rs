//! What may be seen, and when: nothing before its sync has returned, nothing acknowledged after one has failed.

#![cfg(test)]

use ego_core::StoreError;
use ego_core::io::sim::{Call, Crash, Fault, Selector, SimDoor, Times};
use ego_core::journal::{Command, Content, EntityKey, Journal, Outcome, Read, Record, Ticket, Unit, Wait};
use ego_core::log::{Log, LogOptions};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything here takes; a test that needs it has failed.
const LIMIT: Duration = Duration::from_secs(20);

struct Story {
    door: SimDoor,
    log: Log,
    bell: Receiver<()>,
}

fn committer(call: Call) -> Selector {
    Selector::call(call).by("ego-committer")
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(Arc::from("Account"), Arc::from(id))
}

impl Story {
    fn on(door: SimDoor) -> Self {
        Self::with(door, LogOptions { idle_mark_millis: 0, ..LogOptions::default() })
    }

    fn with(door: SimDoor, options: LogOptions) -> Self {
        let log = Log::open(Arc::new(door.clone()), Path::new("/data/s"), options).unwrap();
        let (ring, bell) = channel();
        let ring = Mutex::new(ring);
        log.on_settled(Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default()));
        Self { door, log, bell }
    }

    fn new() -> Self {
        Self::on(SimDoor::new(7))
    }

    fn append(&self, id: &str, first_revision: u64, payload: &[u8]) -> Result<Ticket, StoreError> {
        let records = [Record { name: "E", version: 1, payload }];
        let content = Content::Events(&records);
        let ticket = self.log.append(&Unit { entity: &key(id), first_revision, content, command: None, metadata: &[] });
        self.log.kick();
        ticket
    }

    fn outcome(&self, ticket: Ticket) -> Outcome {
        while self.log.settled() < ticket {
            self.bell.recv_timeout(LIMIT).unwrap();
        }
        self.log.outcome(ticket)
    }

    fn store(&self, id: &str, first_revision: u64) {
        let ticket = self.append(id, first_revision, b"payload").unwrap();
        let outcome = self.outcome(ticket);
        assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
    }

    fn seen(&self, id: &str) -> (u64, u64, u64) {
        let mut events = 0;
        let last = self.log.read_entity(&key(id), 1, Wait::AsLongAsItTakes, &mut |_| {
            events += 1;
            Read::More
        });
        let mut all = 0;
        self.log
            .read_from(1, &mut |_, _| {
                all += 1;
                Read::More
            })
            .unwrap();
        assert_eq!(last.unwrap(), events);
        assert_eq!(self.log.revision(&key(id)).unwrap(), events);
        (events, all, self.log.stats().position)
    }
}

#[test]
fn nothing_is_seen_and_nothing_is_settled_before_the_sync_has_returned() {
    for call in [Call::Write, Call::Datasync] {
        let story = Story::new();
        story.store("a", 1);
        let held = story.door.hold(committer(call));
        let ticket = story.append("a", 2, b"payload").unwrap();
        story.append("b", 1, b"payload").unwrap();
        assert!(held.reached(1, LIMIT));
        assert_eq!(story.log.settled(), ticket - 1);
        assert_eq!(story.seen("a"), (1, 1, 1));
        assert_eq!(story.seen("b").0, 0);
        assert_eq!(story.log.kinds_of("b"), Vec::<Arc<str>>::new());
        drop(held);
        assert!(matches!(story.outcome(ticket + 1), Outcome::Stored));
        assert_eq!(story.seen("a"), (2, 3, 3));
        story.log.close().unwrap();
    }
}

#[test]
fn one_sync_is_shared_by_all_who_wait() {
    let story = Story::new();
    let held = story.door.hold(committer(Call::Datasync));
    let first = story.append("first", 1, b"payload").unwrap();
    assert!(held.reached(1, LIMIT));
    let mut last = first;
    for n in 0..1000 {
        last = story.append(&format!("e-{n}"), 1, b"payload").unwrap();
    }
    drop(held);
    assert!(matches!(story.outcome(last), Outcome::Stored));
    assert_eq!(story.log.stats().batches, 2);
    story.log.close().unwrap();
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_acknowledged_until_the_store_is_opened_again() {
    for call in [Call::Write, Call::Datasync] {
        let story = Story::new();
        story.store("a", 1);
        let held = story.door.hold(committer(call));
        story.door.fail(committer(call), 1, Fault::Eio, Times::Once);
        let failed = story.append("a", 2, b"payload").unwrap();
        assert!(held.reached(1, LIMIT));
        let behind = story.append("b", 1, b"payload").unwrap();
        drop(held);
        for ticket in [failed, behind] {
            let outcome = story.outcome(ticket);
            assert!(matches!(outcome, Outcome::Unknown(StoreError::OutcomeUnknown { .. })), "{outcome:?}");
        }
        assert!(matches!(story.outcome(failed - 1), Outcome::Stored));
        assert!(matches!(story.append("c", 1, b"payload"), Err(StoreError::Poisoned { .. })));
        assert!(matches!(story.log.poisoned(), Some(StoreError::Poisoned { .. })));
        assert_eq!(story.seen("a"), (1, 1, 1), "reads go on up to the last durable position");
        assert!(matches!(story.log.close(), Err(StoreError::Poisoned { .. })));

        let again = Story::on(story.door.clone());
        let held = again.seen("a").0;
        assert!((1..=2).contains(&held), "the failed command is there or not, as a whole");
        again.store("a", held + 1);
        again.log.close().unwrap();
    }
}

#[test]
fn a_batch_that_stayed_in_the_page_cache_is_durable_before_it_is_served() {
    let story = Story::new();
    story.store("a", 1);
    story.door.fail(committer(Call::Datasync), 1, Fault::Eio, Times::Once);
    let failed = story.append("a", 2, b"payload").unwrap();
    assert!(matches!(story.outcome(failed), Outcome::Unknown(_)));
    drop(story.log);
    let again = Story::on(story.door.clone());
    let served = again.seen("a").0;
    again.door.crash();
    drop(again.log);
    let after = Story::on(again.door.after_crash(Crash::HARSH, 1));
    assert_eq!(after.seen("a").0, served, "what was served is there after the power cut");
    after.log.close().unwrap();
}

#[test]
fn a_full_disk_refuses_whole_units_and_work_goes_on_when_space_returns() {
    let story = Story::new();
    story.store("small", 1);
    story.door.set_capacity(Some(story.door.blocks() + 8));
    let big = vec![7; 3 << 20];
    let refused = story.append("big", 1, &big).unwrap();
    let after = story.append("big", 2, b"payload").unwrap();
    for ticket in [refused, after] {
        let outcome = story.outcome(ticket);
        assert!(matches!(outcome, Outcome::Refused(StoreError::Full { .. })), "{outcome:?}");
    }
    story.store("small", 2);
    assert_eq!(story.seen("big").0, 0);
    story.door.set_capacity(None);
    let ticket = story.append("big", 1, &big).unwrap();
    let outcome = story.outcome(ticket);
    assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
    story.log.close().unwrap();
    let again = Story::on(story.door.clone());
    assert_eq!((again.seen("big").0, again.seen("small").0), (1, 2));
    again.log.close().unwrap();
}

#[test]
fn time_never_runs_backwards() {
    let story = Story::new();
    story.store("a", 1);
    story.door.set_wall_nanos(5);
    story.store("a", 2);
    let mut times = Vec::new();
    story
        .log
        .read_entity(&key("a"), 1, Wait::AsLongAsItTakes, &mut |event| {
            times.push(event.time);
            Read::More
        })
        .unwrap();
    match times.as_slice() {
        [first, second] => assert!(second >= first),
        other => panic!("{other:?}"),
    }
    story.log.close().unwrap();
}

#[test]
fn an_idle_log_proves_its_last_batch_with_a_mark() {
    let door = SimDoor::new(3);
    let options = LogOptions { idle_mark_millis: 1, ..LogOptions::default() };
    let story = Story::with(door, options);
    story.store("a", 1);
    while story.log.stats().batches < 2 {
        std::thread::yield_now();
    }
    story.door.crash();
    drop(story.log);
    let again = Story::on(story.door.after_crash(Crash::HARSH, 1));
    assert!(!again.log.opened().undecided_copied);
    assert_eq!(again.seen("a").0, 1);
    again.log.close().unwrap();
}

#[test]
fn a_committer_that_ends_unexpectedly_poisons_the_log_instead_of_hanging() {
    let story = Story::new();
    story.store("a", 1);
    story.log.on_settled(Arc::new(|| panic!("a waker that breaks its promise")));
    let broken = story.append("a", 2, b"payload").unwrap();
    assert!(matches!(story.outcome(broken), Outcome::Stored));
    while story.log.poisoned().is_none() {
        std::thread::yield_now();
    }
    assert!(matches!(story.append("a", 3, b"payload"), Err(StoreError::Poisoned { .. })));
    assert!(matches!(story.log.close(), Err(StoreError::Poisoned { .. })));
    let again = Story::on(story.door.clone());
    assert_eq!(again.seen("a").0, 2);
    again.log.close().unwrap();
}

#[test]
fn a_look_ahead_that_fails_does_not_poison_a_log_that_has_room() {
    let options =
        LogOptions { segment_bytes: 64 << 10, max_unit_bytes: 16 << 10, idle_mark_millis: 0, ..LogOptions::default() };
    let story = Story::with(SimDoor::new(5), options);
    let armed = story.door.fail(Selector::call(Call::Open).on("#.seg.next"), 1, Fault::Eio, Times::ForEver);
    for revision in 1..=40 {
        let ticket = story.append("a", revision, &[7; 1000]).unwrap();
        assert!(matches!(story.outcome(ticket), Outcome::Stored), "{revision}");
    }
    story.door.disarm(armed);
    for revision in 41..=100 {
        let ticket = story.append("a", revision, &[7; 1000]).unwrap();
        assert!(matches!(story.outcome(ticket), Outcome::Stored), "{revision}");
    }
    story.log.close().unwrap();
}

#[test]
fn a_log_is_congested_while_more_waits_than_it_takes_at_once_and_refuses_nothing() {
    let options =
        LogOptions { max_unit_bytes: 4096, max_queue_bytes: 10_000, idle_mark_millis: 0, ..LogOptions::default() };
    let story = Story::with(SimDoor::new(9), options);
    let (seen, log) = (Arc::new(Mutex::new(Vec::new())), Arc::new(story.log));
    let (ring, bell) = channel();
    let (said, asked, ring) = (Arc::clone(&seen), Arc::downgrade(&log), Mutex::new(ring));
    log.on_settled(Arc::new(move || {
        said.lock().unwrap().extend(asked.upgrade().map(|log| log.is_congested()));
        ring.lock().unwrap().send(()).unwrap_or_default();
    }));
    let append = |id: &str, first_revision| {
        let records = [Record { name: "E", version: 1, payload: &[7; 3000] }];
        let content = Content::Events(&records);
        log.append(&Unit { entity: &key(id), first_revision, content, command: None, metadata: &[] }).unwrap()
    };
    let held = story.door.hold(committer(Call::Datasync));
    append("first", 1);
    log.kick();
    assert!(held.reached(1, LIMIT));
    let congested: Vec<_> = (1..=4)
        .map(|revision| {
            append("a", revision);
            log.is_congested()
        })
        .collect();
    assert_eq!(congested, [false, false, true, true], "what is being synced counts as well");
    let last = append("a", 9);
    log.kick();
    drop(held);
    while log.settled() < last {
        bell.recv_timeout(LIMIT).unwrap();
    }
    assert!(matches!(log.outcome(last - 1), Outcome::Stored));
    assert!(matches!(log.outcome(last), Outcome::Refused(StoreError::Conflict { .. })));
    assert!(!log.is_congested());
    assert_eq!(*seen.lock().unwrap(), [true, false], "whoever is woken finds the room that there is");

    story.door.fail(committer(Call::Datasync), 1, Fault::Eio, Times::Once);
    for revision in 5..=9 {
        append("a", revision);
    }
    assert!(log.is_congested());
    log.kick();
    while log.poisoned().is_none() {
        bell.recv_timeout(LIMIT).unwrap();
    }
    assert!(!log.is_congested());
}

#[test]
fn a_refused_unit_takes_along_what_counts_on_its_revision_and_nothing_else() {
    let story = Story::new();
    story.store("small", 1);
    story.door.set_capacity(Some(story.door.blocks() + 8));
    let big = vec![7; 3 << 20];
    let refused = [Record { name: "no", version: 1, payload: &big }];
    let command = Some(Command { id: "c", fingerprint: [1; 16], rejection: Some(refused[0]) });
    let of_small =
        Unit { entity: &key("small"), first_revision: 2, content: Content::Events(&[]), command, metadata: &[] };
    let alone = story.log.append(&of_small).unwrap();
    let next = story.append("small", 2, b"payload").unwrap();
    let event = story.append("big", 1, &big).unwrap();
    let none = Unit {
        entity: &key("big"),
        command: Some(Command { id: "d", fingerprint: [1; 16], rejection: None }),
        ..of_small
    };
    let behind = story.log.append(&none).unwrap();
    story.log.kick();
    for ticket in [alone, event, behind] {
        let outcome = story.outcome(ticket);
        assert!(matches!(outcome, Outcome::Refused(StoreError::Full { .. })), "{ticket}: {outcome:?}");
    }
    assert!(matches!(story.outcome(next), Outcome::Stored));
    assert_eq!(story.seen("small").0, 2);
    story.log.close().unwrap();
}
