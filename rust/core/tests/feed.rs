//! Following a store: every event once, in order, from wherever one starts and however slowly one takes. The same stories over
//! every journal.

#![cfg(test)]

use ego_core::StoreError;
use ego_core::feed::{Chunk, FeedEvent, Filter, Follower, Waker};
use ego_core::io::{RealDoor, SimDoor};
use ego_core::journal::{Command, Content, EntityKey, Journal, Outcome, Read, Record, StoredEvent, Unit, Wait};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use ego_core::scripted::ScriptedJournal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything here takes; a test that needs it has failed.
const LIMIT: Duration = Duration::from_secs(20);

/// A waker, and where it is heard.
fn bell() -> (Waker, Receiver<()>) {
    let (ring, bell) = channel();
    let ring = Mutex::new(ring);
    (Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default()), bell)
}

fn key(kind: &str, id: &str) -> EntityKey {
    EntityKey::new(Arc::from(kind), Arc::from(id))
}

/// What was seen of one event or state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    entity: (String, String),
    revision: u64,
    position: u64,
    time: u64,
    of: (String, u32),
    payload: Vec<u8>,
    metadata: Vec<u8>,
    is_state: bool,
}

impl Seen {
    fn of(FeedEvent { kind, id, event, .. }: FeedEvent<'_>) -> Self {
        Self {
            entity: (kind.to_owned(), id.to_owned()),
            revision: event.revision,
            position: event.position,
            time: event.time,
            of: (event.name.to_owned(), event.version),
            payload: event.payload.to_vec(),
            metadata: event.metadata.to_vec(),
            is_state: event.is_state,
        }
    }
}

fn all(journal: &dyn Journal) -> Vec<Seen> {
    let mut seen = Vec::new();
    let visit = &mut |key: &EntityKey, event: StoredEvent<'_>| {
        let owner = FeedEvent { kind: &key.kind, id: &key.id, shard: 0, ends_unit: false, event };
        seen.push(Seen::of(owner));
        Read::More
    };
    journal.read_from(1, visit).unwrap();
    seen
}

/// A store with a writer that knows its entities' revisions.
struct Store {
    journal: Arc<dyn Journal>,
    settled: Receiver<()>,
    written: u64,
}

impl Store {
    fn new(journal: Arc<dyn Journal>) -> Self {
        let (wake, settled) = bell();
        journal.on_settled(wake);
        Self { journal, settled, written: 0 }
    }

    fn write(&mut self, unit: &Unit<'_>) {
        let ticket = self.journal.append(unit).unwrap();
        self.journal.kick();
        while self.journal.settled() < ticket {
            self.settled.recv_timeout(LIMIT).unwrap();
        }
        assert!(matches!(self.journal.outcome(ticket), Outcome::Stored));
        self.written += 1;
    }

    fn events(&mut self, entity: &EntityKey, names: &[&str]) {
        let first_revision = self.journal.revision(entity).unwrap() + 1;
        let payload = vec![self.written as u8; self.written as usize % 900];
        let records: Vec<_> = names.iter().map(|name| Record { name, version: 2, payload: &payload }).collect();
        let metadata: &[u8] = if self.written.is_multiple_of(3) { b"who: me" } else { b"" };
        let content = Content::Events(&records);
        self.write(&Unit { entity, first_revision, content, command: None, metadata });
    }

    fn state(&mut self, entity: &EntityKey) {
        let first_revision = self.journal.revision(entity).unwrap() + 1;
        let content = Content::State(Record { name: "balance", version: 1, payload: b"state" });
        self.write(&Unit { entity, first_revision, content, command: None, metadata: b"m" });
    }

    fn command(&mut self, entity: &EntityKey) {
        let first_revision = self.journal.revision(entity).unwrap() + 1;
        let id = format!("c-{}", self.written);
        let command = Some(Command { id: &id, fingerprint: [7; 16], rejection: None });
        let content = Content::Events(&[]);
        self.write(&Unit { entity, first_revision, content, command, metadata: b"" });
    }

    /// A mixture of everything: 8 positions a round, in 5 units of which one has none.
    fn rounds(&mut self, rounds: usize) {
        for n in 0..rounds {
            let (a, b) = (key("Account", &format!("a-{}", n % 7)), key("Basket", &format!("b-{}", n % 5)));
            self.events(&a, &["credited", "debited"]);
            self.events(&b, &["filled"]);
            self.state(&key("Shelf", "s"));
            self.command(&a);
            self.events(&a, &["credited", "credited", "debited", "closed"]);
        }
    }

    fn follow(&self, after: u64, filter: Filter) -> Reader {
        let (wake, bell) = bell();
        Reader { follower: Arc::clone(&self.journal).follow(after, filter, wake).unwrap(), bell }
    }
}

struct Reader {
    follower: Box<dyn Follower>,
    bell: Receiver<()>,
}

impl Reader {
    /// The next chunk, once it is there.
    fn chunk(&mut self) -> Chunk {
        loop {
            if let Some(chunk) = self.follower.next(Wait::Never).unwrap() {
                return chunk;
            }
            self.bell.recv_timeout(LIMIT).unwrap();
        }
    }

    /// What comes until everything up to `last` was seen.
    fn upto(&mut self, last: u64) -> Vec<Seen> {
        let mut seen = Vec::new();
        while self.follower.position() < last {
            let before = self.follower.position();
            let chunk = self.chunk();
            assert!(chunk.upto() >= before);
            assert!(chunk.events().all(|event| (before + 1..=chunk.upto()).contains(&event.event.position)));
            seen.extend(chunk.events().map(Seen::of));
        }
        seen
    }
}

/// Everything durable, in the caller's thread.
fn waited(follower: &mut dyn Follower) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Some(chunk) = follower.next(Wait::AsLongAsItTakes).unwrap() {
        seen.extend(chunk.events().map(Seen::of));
    }
    seen
}

/// Small segments, chunks and rings, so that a short story meets all of their ends.
fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        max_unit_bytes: 20 << 10,
        feed_chunk_bytes: 4 << 10,
        feed_ring_bytes: 16 << 10,
        feed_ring_batches: 5,
        ..LogOptions::default()
    }
}

fn log(options: LogOptions) -> Arc<Log> {
    Arc::new(Log::open(Arc::new(SimDoor::new(7)), Path::new("/data/s"), options).unwrap())
}

fn on_every_store(story: impl Fn(&mut Store)) {
    let memory = || Arc::new(MemoryJournal::new(Arc::new(RealDoor)));
    story(&mut Store::new(memory()));
    story(&mut Store::new(Arc::new(ScriptedJournal::new(memory(), Arc::default(), PathBuf::new()))));
    for options in [LogOptions::default(), small()] {
        let mut store = Store::new(log(options));
        story(&mut store);
        store.journal.close().unwrap();
    }
}

#[test]
fn a_follower_sees_every_event_once_in_order_from_every_position() {
    on_every_store(|store| {
        store.rounds(25);
        let stored = all(&*store.journal);
        assert_eq!(stored.len(), 200);
        for after in 0..=stored.len() {
            let rest = stored.get(after..).unwrap();
            let mut reader = store.follow(after as u64, Filter::default());
            assert_eq!(reader.upto(stored.len() as u64), rest, "after {after}");
            assert_eq!(waited(&mut *store.follow(after as u64, Filter::default()).follower), rest, "after {after}");
        }
    });
}

#[test]
fn a_follower_that_was_there_before_the_first_append_sees_everything() {
    on_every_store(|store| {
        let mut reader = store.follow(0, Filter::default());
        assert!(reader.follower.next(Wait::Never).unwrap().is_none());
        store.rounds(3);
        assert_eq!(reader.upto(24), all(&*store.journal));
        assert!(reader.follower.next(Wait::AsLongAsItTakes).unwrap().is_none());
    });
}

#[test]
fn what_is_live_comes_in_the_order_of_commits_and_with_one_call_for_all_who_share_a_waker() {
    on_every_store(|store| {
        let (wake, bell) = bell();
        let follow = |after| Arc::clone(&store.journal).follow(after, Filter::default(), Arc::clone(&wake)).unwrap();
        let mut followers: Vec<_> = (0..100).map(|_| follow(0)).collect();
        for follower in &mut followers {
            assert!(follower.next(Wait::Never).unwrap().is_none());
        }
        store.events(&key("Account", "a"), &["credited", "debited"]);
        bell.recv_timeout(LIMIT).unwrap();
        for follower in &mut followers {
            let chunk = follower.next(Wait::Never).unwrap().unwrap();
            assert_eq!((chunk.len(), chunk.upto()), (2, 2));
            let ends: Vec<_> = chunk.events().map(|event| event.ends_unit).collect();
            assert_eq!(ends, [false, true]);
        }
        assert!(bell.try_recv().is_err());
    });
}

#[test]
fn a_filter_lets_through_what_it_names_and_tells_how_far_the_rest_is_passed() {
    let names = |names: &[&str]| Some(names.iter().map(|&name| Box::from(name)).collect());
    let filters = [
        Filter { names: names(&["debited", "balance"]), ..Filter::default() },
        Filter { names: names(&["nothing"]), ..Filter::default() },
        Filter { kinds: names(&["Basket", "Shelf"]), ..Filter::default() },
        Filter { entity: Some(key("Account", "a-3")), ..Filter::default() },
        Filter { entity: Some(key("Basket", "a-3")), ..Filter::default() },
        Filter { states: false, ..Filter::default() },
        Filter { events: false, ..Filter::default() },
        Filter { names: names(&["credited"]), entity: Some(key("Account", "a-1")), ..Filter::default() },
    ];
    on_every_store(|store| {
        let mut live: Vec<_> = filters.iter().map(|filter| store.follow(0, filter.clone())).collect();
        store.rounds(25);
        let stored = all(&*store.journal);
        for (filter, live) in filters.iter().zip(&mut live) {
            let among = |wanted: &Option<Vec<Box<str>>>, name: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| **wanted == *name))
            };
            let matches = |seen: &&Seen| {
                among(&filter.names, &seen.of.0)
                    && among(&filter.kinds, &seen.entity.0)
                    && filter.entity.as_ref().is_none_or(|e| *e == key(&seen.entity.0, &seen.entity.1))
                    && (if seen.is_state { filter.states } else { filter.events })
            };
            let wanted: Vec<_> = stored.iter().filter(matches).cloned().collect();
            assert_eq!(live.upto(200), wanted, "{filter:?}");
            assert_eq!(store.follow(0, filter.clone()).upto(200), wanted, "{filter:?}");
        }
    });
}

#[test]
fn the_shards_share_all_events_between_them() {
    on_every_store(|store| {
        store.rounds(10);
        let mut seen = Vec::new();
        for shard in 0..128 {
            let mut reader = store.follow(0, Filter { shard: Some(shard), ..Filter::default() });
            let chunks: Vec<_> = std::iter::from_fn(|| reader.follower.next(Wait::AsLongAsItTakes).unwrap()).collect();
            assert!(chunks.iter().flat_map(Chunk::events).all(|event| event.shard == shard));
            seen.extend(chunks.iter().flat_map(Chunk::events).map(Seen::of));
        }
        seen.sort_by_key(|seen| seen.position);
        assert_eq!(seen, all(&*store.journal));
    });
}

#[test]
fn a_reader_that_is_slow_falls_back_to_files_and_comes_to_the_live_end_again() {
    on_every_store(|store| {
        let mut slow = store.follow(0, Filter::default());
        let mut seen = Vec::new();
        for _ in 0..6 {
            store.rounds(1);
            seen.extend(slow.chunk().events().map(Seen::of));
            // More than the small ring holds, and more than a small segment.
            store.rounds(30);
            let last = store.journal.stats().position;
            seen.extend(slow.upto(last));
        }
        assert_eq!(seen, all(&*store.journal));
    });
}

#[test]
fn a_chunk_outlives_its_follower_and_what_comes_after_it() {
    on_every_store(|store| {
        store.rounds(1);
        let mut reader = store.follow(0, Filter::default());
        let kept = reader.chunk();
        let before: Vec<_> = kept.events().map(Seen::of).collect();
        reader.upto(8);
        drop(reader);
        store.rounds(20);
        waited(&mut *store.follow(0, Filter::default()).follower);
        assert_eq!(kept.events().map(Seen::of).collect::<Vec<_>>(), before);
    });
}

#[test]
fn a_follower_of_what_is_beyond_the_end_waits_for_it() {
    on_every_store(|store| {
        store.rounds(1);
        let mut reader = store.follow(12, Filter::default());
        assert!(reader.follower.next(Wait::AsLongAsItTakes).unwrap().is_none());
        store.rounds(1);
        assert_eq!(reader.upto(16), all(&*store.journal).split_off(12));
    });
}

#[test]
fn a_store_has_one_id_and_no_other_has_it() {
    on_every_store(|store| {
        assert_eq!(store.journal.store_id(), store.journal.store_id());
        assert_ne!(store.journal.store_id(), MemoryJournal::new(Arc::new(RealDoor)).store_id());
    });
}

#[test]
fn the_position_at_a_time_is_the_last_one_committed_before_it() {
    let door = SimDoor::new(11);
    let memory: Arc<dyn Journal> = Arc::new(MemoryJournal::new(Arc::new(door.clone())));
    let log = Log::open(Arc::new(door.clone()), Path::new("/data/s"), small()).unwrap();
    for journal in [memory, Arc::new(log)] {
        let mut store = Store::new(journal);
        for round in 1..60 {
            door.set_wall_nanos(round << 40);
            store.rounds(1);
        }
        let stored = all(&*store.journal);
        for time in stored.iter().flat_map(|seen| [seen.time, seen.time + 1]).chain([0, 1, u64::MAX]) {
            let before = stored.iter().filter(|seen| seen.time < time).count() as u64;
            assert_eq!(store.journal.position_at(time).unwrap(), before, "{time}");
        }
        store.journal.close().unwrap();
    }
}

#[test]
fn a_follower_goes_on_over_a_reopening_from_where_it_stood() {
    let door = SimDoor::new(3);
    let open = || Arc::new(Log::open(Arc::new(door.clone()), Path::new("/data/s"), small()).unwrap());
    let (mut seen, mut id, mut after) = (Vec::new(), None, 0);
    for _ in 0..4 {
        let mut store = Store::new(open());
        assert_eq!(*id.get_or_insert(store.journal.store_id()), store.journal.store_id());
        let mut reader = store.follow(after, Filter::default());
        store.rounds(9);
        // Part of it: the rest is of the next opening.
        seen.extend(reader.upto(after + 50));
        after = reader.follower.position();
        store.journal.close().unwrap();
    }
    let store = Store::new(open());
    seen.extend(store.follow(after, Filter::default()).upto(4 * 72));
    assert_eq!(seen, all(&*store.journal));
}

#[test]
fn followers_of_a_log_that_is_closed_are_told() {
    for take in [false, true] {
        let mut store = Store::new(log(small()));
        store.rounds(30);
        let mut reader = store.follow(if take { 0 } else { 240 }, Filter::default());
        while let Some(chunk) = reader.follower.next(Wait::AsLongAsItTakes).unwrap().filter(|_| take) {
            assert!(!chunk.is_empty());
        }
        assert!(reader.follower.next(Wait::Never).unwrap().is_none());
        store.journal.close().unwrap();
        reader.bell.recv_timeout(LIMIT).unwrap();
        for wait in [Wait::Never, Wait::AsLongAsItTakes] {
            assert!(matches!(reader.follower.next(wait), Err(StoreError::Closed)));
        }
        assert!(Arc::clone(&store.journal).follow(0, Filter::default(), bell().0).is_err());
    }
}
