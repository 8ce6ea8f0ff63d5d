//! Notes: what is kept in a journal by name, told over both journals; when notes go to the disk, and what stays of them.
//!
//! `EGO_SIM_SEED` asks for another random program.

#![cfg(test)]

use ego_core::StoreError;
use ego_core::io::sim::{Call, Crash, Held, Selector, SimDoor};
use ego_core::journal::{
    Content, EntityKey, Journal, MAX_NAME_BYTES, MAX_NOTE_BYTES, NOTES, Outcome, Read, Record, Ticket, Unit,
};
use ego_core::log::{Log, LogOptions};
use ego_core::memory::MemoryJournal;
use ego_core::scripted::ScriptedJournal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes; a test that needs it has failed.
const LIMIT: Duration = Duration::from_secs(20);
/// Many times what an idle committer waits.
const SILENCE: Duration = Duration::from_millis(60);

fn open(door: &SimDoor, options: LogOptions) -> Arc<dyn Journal> {
    heard(Arc::new(Log::open(Arc::new(door.clone()), Path::new("/data/s"), options).unwrap()))
}

fn heard(journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
    let story = std::thread::current();
    journal.on_settled(Arc::new(move || story.unpark()));
    journal
}

fn options(idle_mark_millis: u64) -> LogOptions {
    LogOptions {
        segment_bytes: 256 << 10,
        max_unit_bytes: 80 << 10,
        checkpoint_bytes: 20 << 10,
        idle_mark_millis,
        ..LogOptions::default()
    }
}

fn on_every_journal(story: impl Fn(&dyn Journal)) {
    let memory = || Arc::new(MemoryJournal::new(Arc::new(SimDoor::new(1))));
    story(&*heard(memory()));
    story(&*heard(Arc::new(ScriptedJournal::new(memory(), Arc::default(), PathBuf::new()))));
    let log = open(&SimDoor::new(1), options(0));
    story(&*log);
    log.close().unwrap();
}

fn settle(journal: &dyn Journal, ticket: Ticket) -> Outcome {
    while journal.settled() < ticket {
        std::thread::park_timeout(LIMIT);
    }
    journal.outcome(ticket)
}

fn store(journal: &dyn Journal, name: &str, value: &[u8]) {
    let ticket = journal.write_note(name, value).unwrap();
    journal.kick();
    let outcome = settle(journal, ticket);
    assert!(matches!(outcome, Outcome::Stored), "{outcome:?}");
}

fn append(journal: &dyn Journal, first_revision: u64) -> Ticket {
    let entity = EntityKey::new("Account".into(), "a".into());
    let content = Content::Events(&[Record { name: "E", version: 1, payload: b"x" }]);
    journal.append(&Unit { entity: &entity, first_revision, content, command: None, metadata: &[] }).unwrap()
}

fn listed(journal: &dyn Journal, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let (mut all, mut names) = (BTreeMap::new(), Vec::new());
    let visit = &mut |name: &str, value: &[u8]| {
        names.push(name.to_owned());
        all.insert(name.to_owned(), value.to_vec());
        Read::More
    };
    journal.read_notes(prefix, visit).unwrap();
    assert!(names.is_sorted() && names.len() == all.len(), "{names:?}");
    all
}

#[test]
fn of_a_note_the_latest_value_counts_and_an_empty_one_removes_it() {
    on_every_journal(|journal| {
        assert_eq!(journal.read_note("offset/a").unwrap(), None);
        store(journal, "offset/a", b"1");
        store(journal, "offset/ab", &[7; MAX_NOTE_BYTES]);
        store(journal, "offset/a", b"2");
        assert_eq!(journal.read_note("offset/a").unwrap(), Some(b"2".to_vec()));
        assert_eq!(journal.read_note("offset/ab").unwrap(), Some(vec![7; MAX_NOTE_BYTES]));
        assert_eq!(journal.read_note("offset/").unwrap(), None);
        store(journal, "offset/a", b"");
        assert_eq!(journal.read_note("offset/a").unwrap(), None);
        assert_eq!(listed(journal, "offset/").len(), 1);
        store(journal, "offset/a", b"3");
        assert_eq!(journal.read_note("offset/a").unwrap(), Some(b"3".to_vec()));
    });
}

#[test]
fn notes_are_listed_by_prefix_in_the_order_of_their_names() {
    on_every_journal(|journal| {
        let mut last = 0;
        for n in (0..300).rev() {
            last = journal.write_note(&format!("dead/{n:020}"), format!("{n}").as_bytes()).unwrap();
        }
        journal.kick();
        assert!(matches!(settle(journal, last), Outcome::Stored));
        store(journal, "de", b"before");
        store(journal, "deae", b"behind");
        let dead = listed(journal, "dead/");
        let expected = (0..300).map(|n| (format!("dead/{n:020}"), format!("{n}").into_bytes())).collect();
        assert_eq!(dead, expected);
        assert_eq!((listed(journal, "").len(), listed(journal, "dx").len()), (302, 0));
        let mut seen = 0;
        let visit = &mut |_: &str, _: &[u8]| {
            seen += 1;
            if seen == 100 { Read::Enough } else { Read::More }
        };
        journal.read_notes("", visit).unwrap();
        assert_eq!(seen, 100);
    });
}

#[test]
fn notes_take_no_position_and_are_no_entities() {
    on_every_journal(|journal| {
        store(journal, "a", b"note");
        let first = append(journal, 1);
        store(journal, "a", b"again");
        assert!(matches!(settle(journal, first), Outcome::Stored));
        let second = append(journal, 2);
        journal.kick();
        assert!(matches!(settle(journal, second), Outcome::Stored));
        let mut positions = Vec::new();
        let visit = &mut |key: &EntityKey, event: ego_core::journal::StoredEvent<'_>| {
            positions.push((key.kind.to_string(), event.position));
            Read::More
        };
        journal.read_from(1, visit).unwrap();
        assert_eq!(positions, [("Account".to_owned(), 1), ("Account".to_owned(), 2)]);
        let stats = journal.stats();
        assert_eq!((stats.position, stats.entities, stats.units), (2, 1, 4));
        assert_eq!(journal.kinds_of("a"), [Arc::from("Account")]);
        assert_eq!(journal.revision(&EntityKey::new(NOTES.into(), "a".into())).unwrap(), 0);
    });
}

#[test]
fn a_note_that_is_too_long_is_refused_and_no_trace_of_it_is_left() {
    on_every_journal(|journal| {
        let (long, longest) = ("n".repeat(MAX_NAME_BYTES + 1), "n".repeat(MAX_NAME_BYTES));
        for (name, value) in [(&*long, 1), ("n", MAX_NOTE_BYTES + 1)] {
            let refused = journal.write_note(name, &vec![1; value]);
            assert!(matches!(refused, Err(StoreError::NoteTooLarge { .. })), "{refused:?}");
        }
        assert_eq!((listed(journal, "").len(), journal.stats().units), (0, 0));
        store(journal, &longest, b"fits");
        assert_eq!(journal.read_note(&longest).unwrap(), Some(b"fits".to_vec()));
    });
}

/// An open log of which the writes of the committer are watched.
struct Watched {
    door: SimDoor,
    journal: Arc<dyn Journal>,
}

impl Watched {
    fn new() -> Self {
        let door = SimDoor::new(3);
        let journal = open(&door, options(1));
        Self { door, journal }
    }

    /// Syncs of the committer so far: one for each batch and each mark.
    fn syncs(&self) -> u64 {
        let counts = self.door.counts();
        let of_commits =
            counts.iter().filter(|(site, _)| site.call == Call::Datasync && &*site.thread == "ego-committer");
        of_commits.map(|(_, count)| count).sum()
    }

    fn hold(&self) -> Held {
        self.door.hold(Selector::call(Call::Write).by("ego-committer"))
    }

    /// Nothing more is written.
    fn is_silent(&self) -> bool {
        !self.hold().reached(1, SILENCE)
    }
}

#[test]
fn a_note_rides_on_the_next_batch() {
    let watched = Watched::new();
    let journal = &*watched.journal;
    let held = watched.hold();
    let first = append(journal, 1);
    journal.kick();
    assert!(held.reached(1, LIMIT));
    let note = journal.write_note("offset/a", b"1").unwrap();
    let second = append(journal, 2);
    journal.kick();
    drop(held);
    assert!(matches!(settle(journal, second), Outcome::Stored));
    assert!(matches!(journal.outcome(note), Outcome::Stored));
    assert_eq!((first, note, second, journal.stats().batches), (1, 2, 3, 2));
    assert_eq!(journal.read_note("offset/a").unwrap(), Some(b"1".to_vec()));
    journal.close().unwrap();
}

#[test]
fn a_note_that_no_batch_takes_along_is_the_mark_of_what_stands_before_and_then_there_is_silence() {
    let watched = Watched::new();
    let journal = &*watched.journal;
    assert!(watched.is_silent());
    for round in 1..=3 {
        let before = watched.syncs();
        let unit = append(journal, round);
        journal.kick();
        // Between the burst and its mark, if the note is quick enough; else behind the mark.
        assert!(matches!(settle(journal, unit), Outcome::Stored));
        let note = journal.write_note("offset/a", &[round as u8]).unwrap();
        assert!(matches!(settle(journal, note), Outcome::Stored));
        assert!(watched.is_silent(), "notes alone need no mark");
        let syncs = watched.syncs() - before;
        assert!((2..=3).contains(&syncs), "a burst, perhaps its mark, and the note: {syncs}");
    }
    journal.close().unwrap();
}

#[test]
fn after_a_burst_a_note_makes_exactly_one_more_write() {
    let watched = Watched::new();
    let journal = &*watched.journal;
    let held = watched.hold();
    let unit = append(journal, 1);
    journal.kick();
    assert!(held.reached(1, LIMIT));
    // The burst is being written: the note is there before its mark can be.
    let before = watched.syncs();
    let note = journal.write_note("offset/a", b"1").unwrap();
    drop(held);
    assert!(matches!(settle(journal, note), Outcome::Stored));
    assert!(matches!(journal.outcome(unit), Outcome::Stored));
    assert!(watched.is_silent());
    assert_eq!((watched.syncs() - before, journal.stats().batches), (2, 2));
    journal.close().unwrap();
}

#[test]
fn a_note_that_wakes_a_sleeping_committer_is_written_once_and_silence_returns() {
    let watched = Watched::new();
    let journal = &*watched.journal;
    assert!(watched.is_silent());
    for round in 1..=3 {
        let before = watched.syncs();
        let note = journal.write_note("offset/a", &[round]).unwrap();
        assert!(matches!(settle(journal, note), Outcome::Stored));
        assert!(watched.is_silent());
        assert_eq!(watched.syncs() - before, 1);
    }
    journal.close().unwrap();
}

#[test]
fn closing_commits_notes_that_nobody_kicked() {
    let door = SimDoor::new(5);
    let journal = open(&door, options(0));
    let ticket = journal.write_note("offset/a", b"1").unwrap();
    journal.close().unwrap();
    assert!(matches!(journal.outcome(ticket), Outcome::Stored));
    assert!(matches!(journal.write_note("offset/a", b"2"), Err(StoreError::Closed)));
    assert!(matches!(journal.read_note("offset/a"), Err(StoreError::Closed)));
    let again = open(&door, options(0));
    assert_eq!(again.read_note("offset/a").unwrap(), Some(b"1".to_vec()));
    again.close().unwrap();
}

#[test]
fn a_full_disk_refuses_a_note_and_the_value_before_stays() {
    let door = SimDoor::new(6);
    let journal = open(&door, options(0));
    store(&*journal, "n", b"before");
    door.set_capacity(Some(door.blocks()));
    let mut refused = 0;
    while refused == 0 {
        let ticket = journal.write_note("filler", &[1; MAX_NOTE_BYTES]).unwrap();
        journal.kick();
        match settle(&*journal, ticket) {
            Outcome::Stored => {}
            Outcome::Refused(StoreError::Full { .. }) => refused = ticket,
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(journal.read_note("n").unwrap(), Some(b"before".to_vec()));
    door.set_capacity(None);
    store(&*journal, "filler", b"after");
    assert_eq!(journal.read_note("filler").unwrap(), Some(b"after".to_vec()));
    journal.close().unwrap();
}

#[test]
fn random_notes_are_what_a_map_says_across_restarts_and_power_cuts() {
    let seed = std::env::var("EGO_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in seed..seed + 10u64 {
        let mut chance = seed;
        let mut below = |most: u64| {
            chance = chance.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (chance >> 33) % most
        };
        let mut door = SimDoor::new(seed);
        let mut journal = open(&door, options(0));
        let (mut map, mut last, mut revision) = (BTreeMap::new(), 0, 0);
        for _ in 0..250 {
            match below(20) {
                0 => {
                    journal.kick();
                    assert!(matches!(settle(&*journal, last), Outcome::Stored), "seed {seed}");
                    if below(2) == 0 {
                        door.crash();
                        drop(journal);
                        door = door.after_crash(Crash::HARSH, seed);
                    } else {
                        journal.close().unwrap();
                    }
                    (journal, last) = (open(&door, options(0)), 0);
                    assert_eq!(listed(&*journal, ""), map, "seed {seed}");
                }
                1..=4 => {
                    revision += 1;
                    last = append(&*journal, revision);
                }
                _ => {
                    let name = format!("n-{}", below(90));
                    let most = if below(10) == 0 { MAX_NOTE_BYTES as u64 } else { 60 };
                    let value = vec![below(256) as u8; below(most) as usize];
                    last = journal.write_note(&name, &value).unwrap();
                    if value.is_empty() {
                        map.remove(&name)
                    } else {
                        map.insert(name, value)
                    };
                }
            }
        }
        journal.kick();
        assert!(matches!(settle(&*journal, last), Outcome::Stored), "seed {seed}");
        assert_eq!(listed(&*journal, ""), map, "seed {seed}");
        assert_eq!(journal.stats().position, revision, "seed {seed}");
        journal.close().unwrap();
    }
}
