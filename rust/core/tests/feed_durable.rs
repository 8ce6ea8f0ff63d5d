//! What followers of a log may see, and when: nothing before its sync has returned, everything before its writer is answered, and
//! no disk that is slow, failing or damaged makes them skip, repeat or block.

#![cfg(test)]

use ego_core::StoreError;
use ego_core::feed::{Filter, Follower, Waker};
use ego_core::io::sim::{Call, Fault, Selector, SimDoor, Times};
use ego_core::io::{Door, RealDoor};
use ego_core::journal::{Content, EntityKey, Journal, Outcome, Read, Record, Ticket, Unit, Wait};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything here takes; a test that needs it has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn committer(call: Call) -> Selector {
    Selector::call(call).by("ego-committer")
}

fn background() -> Selector {
    Selector::call(Call::Read).by("ego-feed")
}

fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        max_unit_bytes: 20 << 10,
        idle_mark_millis: 0,
        feed_chunk_bytes: 4 << 10,
        feed_ring_bytes: 16 << 10,
        feed_ring_batches: 5,
        ..LogOptions::default()
    }
}

fn bell() -> (Waker, Receiver<()>) {
    let (ring, bell) = channel();
    let ring = Mutex::new(ring);
    (Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default()), bell)
}

struct Story {
    door: SimDoor,
    log: Arc<Log>,
    settled: Receiver<()>,
}

impl Story {
    fn new() -> Self {
        Self::on(SimDoor::new(7))
    }

    fn on(door: SimDoor) -> Self {
        let log = Arc::new(Log::open(Arc::new(door.clone()), Path::new("/data/s"), small()).unwrap());
        let (wake, settled) = bell();
        log.on_settled(wake);
        Self { door, log, settled }
    }

    fn append(&self, id: &str, first_revision: u64) -> Result<Ticket, StoreError> {
        append(&*self.log, id, first_revision, &[3; 700])
    }

    fn outcome(&self, ticket: Ticket) -> Outcome {
        while self.log.settled() < ticket {
            self.settled.recv_timeout(LIMIT).unwrap();
        }
        self.log.outcome(ticket)
    }

    fn store(&self, id: &str, revisions: std::ops::RangeInclusive<u64>) {
        for revision in revisions {
            let outcome = self.outcome(self.append(id, revision).unwrap());
            assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
        }
    }

    fn follow(&self, after: u64) -> Reader {
        let (wake, bell) = bell();
        Reader { follower: Arc::clone(&self.log).follow(after, Filter::default(), wake).unwrap(), bell }
    }
}

fn append(journal: &dyn Journal, id: &str, first_revision: u64, payload: &[u8]) -> Result<Ticket, StoreError> {
    let entity = EntityKey::new(Arc::from("Account"), Arc::from(id));
    let content = Content::Events(&[Record { name: "E", version: 1, payload }]);
    let ticket = journal.append(&Unit { entity: &entity, first_revision, content, command: None, metadata: &[] });
    journal.kick();
    ticket
}

struct Reader {
    follower: Box<dyn Follower>,
    bell: Receiver<()>,
}

impl Reader {
    /// The positions that are ready by now, up to the first failure.
    fn ready(&mut self, wait: Wait) -> (Vec<u64>, Option<StoreError>) {
        let mut seen = Vec::new();
        loop {
            match self.follower.next(wait) {
                Ok(Some(chunk)) => seen.extend(chunk.events().map(|event| event.event.position)),
                Ok(None) => return (seen, None),
                Err(error) => return (seen, Some(error)),
            }
        }
    }

    /// What comes until `last`, or until a read fails.
    fn upto(&mut self, last: u64) -> (Vec<u64>, Option<StoreError>) {
        let mut seen = Vec::new();
        loop {
            let (more, error) = self.ready(Wait::Never);
            seen.extend(more);
            if error.is_some() || self.follower.position() >= last {
                return (seen, error);
            }
            self.bell.recv_timeout(LIMIT).unwrap();
        }
    }
}

fn positions(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn nothing_is_followed_before_its_sync_has_returned() {
    for call in [Call::Write, Call::Datasync] {
        let story = Story::new();
        story.store("a", 1..=2);
        let mut readers = [story.follow(0), story.follow(2)];
        let held = story.door.hold(committer(call));
        let ticket = story.append("a", 3).unwrap();
        assert!(held.reached(1, LIMIT));
        assert_eq!(readers[0].upto(2).0, [1, 2]);
        for reader in &mut readers {
            for wait in [Wait::Never, Wait::AsLongAsItTakes] {
                assert!(reader.follower.next(wait).unwrap().is_none());
            }
        }
        drop(held);
        assert!(matches!(story.outcome(ticket), Outcome::Stored));
        for reader in &mut readers {
            assert_eq!(reader.ready(Wait::Never).0, [3]);
        }
        story.log.close().unwrap();
    }
}

#[test]
fn what_is_followed_is_there_before_its_writer_is_answered() {
    let story = Story::new();
    let reader = Mutex::new(story.follow(0));
    assert!(reader.lock().unwrap().ready(Wait::Never).0.is_empty());
    let (log, late) = (Arc::downgrade(&story.log), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&late);
    // Called by the committer as it settles: every ticket is one position here.
    story.log.on_settled(Arc::new(move || {
        let Some(log) = log.upgrade() else { return };
        let mut reader = reader.lock().unwrap();
        reader.ready(Wait::Never);
        let position = reader.follower.position();
        counted.fetch_add(u64::from(position < log.settled() || position > log.stats().position), Ordering::SeqCst);
    }));
    story.store("a", 1..=200);
    assert_eq!(late.load(Ordering::SeqCst), 0);
    story.log.close().unwrap();
}

#[test]
fn what_was_accepted_while_the_committer_stood_still_is_skipped_by_nobody() {
    for odd in [1, 3, 7] {
        let story = Story::new();
        story.store("before", 1..=odd);
        let mut readers = [story.follow(0), story.follow(odd), story.follow(odd - 1)];
        let held = story.door.hold(committer(Call::Write));
        let first = story.append("frozen", 1).unwrap();
        assert!(held.reached(1, LIMIT));
        // Accepted and not committed; others come behind it, one of whom is refused and takes no position.
        let mut last = first;
        for n in 0..600 {
            last = story.append(&format!("e-{}", n / 2), n % 2 + 1).unwrap();
        }
        let refused = story.append("e-0", 9).unwrap();
        let behind = story.append("behind", 1).unwrap();
        for reader in &mut readers {
            reader.upto(odd);
            assert!(reader.follower.next(Wait::AsLongAsItTakes).unwrap().is_none());
            assert_eq!(reader.follower.position(), odd);
        }
        drop(held);
        assert!(matches!(story.outcome(behind), Outcome::Stored));
        assert!(matches!(story.outcome(last), Outcome::Stored));
        assert!(matches!(story.outcome(refused), Outcome::Refused(StoreError::Conflict { .. })));
        for reader in &mut readers {
            assert_eq!(reader.upto(odd + 602).0, positions(odd + 1..=odd + 602));
        }
        story.log.close().unwrap();
    }
}

#[test]
fn a_poisoned_log_is_followed_up_to_the_last_durable_position_and_no_further() {
    for call in [Call::Write, Call::Datasync] {
        let story = Story::new();
        story.store("a", 1..=60);
        let mut live = story.follow(60);
        story.door.fail(committer(call), 1, Fault::Eio, Times::Once);
        let failed = story.append("a", 61).unwrap();
        assert!(matches!(story.outcome(failed), Outcome::Unknown(_)));
        assert!(live.ready(Wait::Never).0.is_empty());
        for wait in [Wait::Never, Wait::AsLongAsItTakes] {
            let mut late = story.follow(0);
            late.ready(wait);
            late.upto(60);
            assert!(late.follower.next(wait).unwrap().is_none());
            assert_eq!(late.follower.position(), 60);
        }
        assert!(story.log.close().is_err());
    }
}

#[test]
fn a_disk_that_hangs_holds_up_neither_the_taker_nor_the_writer() {
    let story = Story::new();
    story.store("a", 1..=60);
    let held = story.door.hold(background());
    let mut behind = story.follow(0);
    let mut live = story.follow(60);
    assert!(behind.ready(Wait::Never).0.is_empty());
    assert!(held.reached(1, LIMIT));
    story.store("a", 61..=120);
    assert!(behind.ready(Wait::Never).0.is_empty());
    // Too slow for the small ring, and behind one that hangs.
    assert!(live.ready(Wait::Never).0.is_empty());
    let mut dropped = story.follow(0);
    assert!(dropped.ready(Wait::Never).0.is_empty());
    drop(dropped);
    drop(held);
    assert_eq!(behind.upto(120).0, positions(1..=120));
    assert_eq!(live.upto(120).0, positions(61..=120));
    story.log.close().unwrap();
}

#[test]
fn who_is_not_to_wait_reads_no_file_in_his_own_thread() {
    let story = Story::new();
    story.store("a", 1..=100);
    let reads = || {
        let counts = story.door.counts();
        let of_caller = |site: &&ego_core::io::sim::Site| &*site.thread == "caller" && site.call == Call::Read;
        counts.keys().filter(of_caller).map(|site| counts[site]).sum::<u64>()
    };
    let before = reads();
    let mut reader = story.follow(0);
    assert_eq!(reader.upto(100).0, positions(1..=100));
    assert_eq!(reads(), before);
    story.log.close().unwrap();
}

#[test]
fn a_read_that_fails_is_told_once_and_tried_again_from_the_same_place() {
    for nth in 1..12 {
        let story = Story::new();
        story.store("a", 1..=120);
        let mut reader = story.follow(0);
        let armed = story.door.fail(background(), nth, Fault::Eio, Times::Once);
        let (mut seen, error) = reader.upto(120);
        story.door.disarm(armed);
        assert!(matches!(error, Some(StoreError::Io { .. })), "{nth}: {error:?}");
        let (rest, error) = reader.upto(120);
        seen.extend(rest);
        assert!(error.is_none());
        assert_eq!(seen, positions(1..=120), "{nth}");
        story.log.close().unwrap();
    }
}

#[test]
fn the_events_before_a_damage_are_followed_and_then_its_place_is_told() {
    let story = Story::new();
    story.store("a", 1..=100);
    story.log.close().unwrap();
    let damaged = Path::new("/data/s/00000001.seg");
    let story = Story::on(story.door.clone());
    story.door.flip(damaged, 40_000, 4).unwrap();
    for wait in [Wait::Never, Wait::AsLongAsItTakes] {
        let mut reader = story.follow(0);
        let (mut seen, mut error) = reader.ready(wait);
        if error.is_none() {
            let (more, found) = reader.upto(100);
            seen.extend(more);
            error = found;
        }
        let Some(StoreError::Corrupt { path, offset, .. }) = error else { panic!("{error:?}") };
        assert_eq!(path, damaged);
        assert!((30_000..40_000).contains(&offset), "{offset}");
        assert_eq!(seen, positions(1..=seen.len() as u64));
        assert!((20..60).contains(&seen.len()), "{}", seen.len());
    }
    story.log.close().unwrap();
}

#[test]
fn a_forked_child_follows_nothing_and_waits_for_nobody_when_it_lets_go() {
    let memory: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::new(RealDoor)));
    for journal in [memory, Story::new().log] {
        let mut follower = Arc::clone(&journal).follow(0, Filter::default(), bell().0).unwrap();
        journal.abandon_after_fork();
        assert!(matches!(follower.next(Wait::AsLongAsItTakes), Err(StoreError::Forked { .. })));
        assert!(Arc::clone(&journal).follow(0, Filter::default(), bell().0).is_err());
    }
}

/// A small generator, so that a failure can be told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Each of several writers appends to its own entity while followers come, go, stall and go on.
fn everybody_at_once(journal: &Arc<dyn Journal>, seed: u64) {
    const WRITERS: u64 = 4;
    let units = 150 + seed % 100;
    let done = AtomicBool::new(false);
    let follow = |number: u64| {
        let mut random = Random(seed ^ number << 32);
        let (mut seen, mut after) = (Vec::new(), 0);
        let mut is_last = false;
        while !is_last {
            // Before the look: who finds nothing after this has everything.
            let (wake, bell) = bell();
            let mut follower = Arc::clone(journal).follow(after, Filter::default(), wake).unwrap();
            for _ in 0..random.below(200) + 1 {
                is_last = done.load(Ordering::SeqCst);
                let wait = if is_last || random.below(2) == 0 { Wait::AsLongAsItTakes } else { Wait::Never };
                match follower.next(wait).unwrap() {
                    Some(chunk) => {
                        seen.extend(chunk.events().map(|e| (e.event.position, e.id.to_owned(), e.event.revision)));
                    }
                    None if is_last => break,
                    None if random.below(3) == 0 => std::thread::yield_now(),
                    // The end of the writers rings no bell.
                    None => drop(bell.recv_timeout(Duration::from_millis(2))),
                }
                is_last = false;
            }
            after = follower.position();
        }
        seen
    };
    std::thread::scope(|scope| {
        let followers: Vec<_> = (0..3).map(|number| scope.spawn(move || follow(number))).collect();
        let write = |number: u64| {
            let mut random = Random(seed.wrapping_add(number));
            let mut last = 0;
            for revision in 1..=units {
                let payload = vec![7; random.below(2_000) as usize];
                last = append(&**journal, &format!("w-{number}"), revision, &payload).unwrap();
                if random.below(4) == 0 {
                    while journal.settled() < last {
                        std::thread::yield_now();
                    }
                }
            }
            while journal.settled() < last {
                std::thread::yield_now();
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || write(number))).collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        let mut stored = Vec::new();
        journal
            .read_from(1, &mut |key, event| {
                stored.push((event.position, key.id.to_string(), event.revision));
                Read::More
            })
            .unwrap();
        assert_eq!(stored.len() as u64, WRITERS * units);
        for follower in followers {
            assert_eq!(follower.join().unwrap(), stored, "EGO_SEED={seed}");
        }
    });
}

#[test]
fn followers_among_writers_see_what_a_later_reader_sees() {
    let named = std::env::var("EGO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = named.map_or(1..13, |seed: u64| seed..seed + 1);
    for seed in seeds {
        everybody_at_once(&(Arc::new(MemoryJournal::new(Arc::new(RealDoor))) as Arc<dyn Journal>), seed);
        let door: Arc<dyn Door> = Arc::new(SimDoor::new(seed));
        let ring = LogOptions { feed_ring_batches: 1 + seed as u32 * 3, ..small() };
        let journal: Arc<dyn Journal> = Arc::new(Log::open(door, Path::new("/data/s"), ring).unwrap());
        everybody_at_once(&journal, seed);
        journal.close().unwrap();
    }
}
