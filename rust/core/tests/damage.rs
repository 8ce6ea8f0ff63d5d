//! What the log does with bytes that are not what it wrote: refuse, drop or rebuild, and never guess.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test looks at real files without the door")]

use ego_core::StoreError;
use ego_core::history;
use ego_core::io::RealDoor;
use ego_core::io::sim::SimDoor;
use ego_core::journal::{Command, Content, EntityKey, Journal, Outcome, Read, Record, Unit, Wait};
use ego_core::log::{Log, LogOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

const DATA_START: usize = 8192;

fn open(path: &Path) -> Result<Log, StoreError> {
    let options = LogOptions { segment_bytes: 64 << 10, max_unit_bytes: 16 << 10, ..LogOptions::default() };
    Log::open(Arc::new(RealDoor), path, options)
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(Arc::from("Account"), Arc::from(id))
}

/// Stores `count` events of 500 bytes, one batch each, as revisions of one entity.
fn fill(log: &Log, count: u64) {
    let (ring, bell) = channel();
    let ring = std::sync::Mutex::new(ring);
    log.on_settled(Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default()));
    let first = log.revision(&key("a")).unwrap() + 1;
    for revision in first..first + count {
        let records = [Record { name: "E", version: 1, payload: &[revision as u8; 500] }];
        let content = Content::Events(&records);
        let unit = Unit { entity: &key("a"), first_revision: revision, content, command: None, metadata: &[] };
        let ticket = log.append(&unit).unwrap();
        log.kick();
        while log.settled() < ticket {
            bell.recv().unwrap();
        }
        assert!(matches!(log.outcome(ticket), Outcome::Stored));
    }
}

fn read(log: &Log) -> Result<Vec<u8>, StoreError> {
    let mut seen = Vec::new();
    log.read_entity(&key("a"), 1, Wait::AsLongAsItTakes, &mut |event| {
        assert_eq!(event.payload.len(), 500);
        seen.push(event.payload[0]);
        Read::More
    })?;
    Ok(seen)
}

/// Files of a store with this extension, in order.
fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

/// A store as a killed process leaves it: copied while it is open, so without the mark of an orderly close.
fn killed(count: u64, path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let options =
        LogOptions { idle_mark_millis: 0, segment_bytes: 64 << 10, max_unit_bytes: 16 << 10, ..LogOptions::default() };
    let log = Log::open(Arc::new(RealDoor), &live, options).unwrap();
    fill(&log, count);
    std::fs::create_dir(path).unwrap();
    for file in std::fs::read_dir(&live).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, path.join(file.file_name().unwrap())).unwrap();
    }
    log.close().unwrap();
}

#[test]
fn a_flipped_bit_in_the_middle_is_refused_with_its_place_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    killed(20, &path);
    let segment = files(&path, "seg").pop().unwrap();
    flip(&segment, DATA_START + 3 * 700);
    let before = std::fs::read(&segment).unwrap();
    match open(&path) {
        Err(StoreError::Corrupt { path, offset, .. }) => {
            assert_eq!(path, segment);
            assert!((DATA_START as u64..DATA_START as u64 + 4 * 700).contains(&offset), "{offset}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&segment).unwrap(), before);
    assert_eq!(files(&path, "seg").len(), 1);
}

#[test]
fn a_torn_tail_is_dropped_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    killed(20, &path);
    let segment = files(&path, "seg").pop().unwrap();
    // The last batch is cut in its middle: what follows was never written.
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[end - 300..].fill(0);
    std::fs::write(&segment, bytes).unwrap();
    let log = open(&path).unwrap();
    let torn = log.opened().torn.clone().unwrap();
    assert_eq!(torn.path, segment);
    assert!(torn.bytes > 0 && torn.offset > DATA_START as u64);
    assert_eq!(read(&log).unwrap(), (1..=19).collect::<Vec<u8>>());
    fill(&log, 5);
    log.close().unwrap();
    let log = open(&path).unwrap();
    assert_eq!(read(&log).unwrap(), (1..=24).collect::<Vec<u8>>());
    log.close().unwrap();
}

#[test]
fn the_undecided_last_batch_is_copied_into_a_new_segment_before_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    killed(20, &path);
    let log = open(&path).unwrap();
    assert!(log.opened().undecided_copied);
    assert_eq!(read(&log).unwrap(), (1..=20).collect::<Vec<u8>>());
    log.close().unwrap();
    // What the page cache might have lost is not needed any more: the old segment ends before that batch.
    let old = files(&path, "seg").remove(0);
    let mut bytes = std::fs::read(&old).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[end - 500..].fill(0);
    std::fs::write(&old, bytes).unwrap();
    std::fs::remove_file(path.join("checkpoint")).unwrap();
    let log = open(&path).unwrap();
    assert_eq!(read(&log).unwrap(), (1..=20).collect::<Vec<u8>>());
    log.close().unwrap();
}

#[test]
fn a_missing_segment_is_refused() {
    for lost in [0, 1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let log = open(&path).unwrap();
        fill(&log, 250);
        log.close().unwrap();
        let segments = files(&path, "seg");
        assert!(segments.len() >= 3);
        std::fs::remove_file(&segments[lost]).unwrap();
        match open(&path) {
            Err(StoreError::Corrupt { path, .. }) => assert_eq!(path, segments[lost]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn damage_in_a_sealed_segment_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let log = open(&path).unwrap();
    fill(&log, 250);
    log.close().unwrap();
    let segment = files(&path, "seg").remove(0);
    // Somewhere in a payload: only the checksum of its record covers it on this way.
    flip(&segment, DATA_START + 5 * 704 + 400);
    let log = open(&path).unwrap();
    match read(&log) {
        Err(StoreError::Corrupt { path, .. }) => assert_eq!(path, segment),
        other => panic!("{other:?}"),
    }
    log.close().unwrap();
}

#[test]
fn the_events_before_a_damage_are_handed_out_before_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let log = open(&path).unwrap();
    fill(&log, 250);
    log.close().unwrap();
    flip(&files(&path, "seg").remove(0), DATA_START + 5 * 704 + 400);
    let log = open(&path).unwrap();
    let mut seen = Vec::new();
    let outcome =
        history::read(&log, &key("a"), history::Wanted::Events { from: 1 }, Wait::AsLongAsItTakes, &mut |chunk| {
            seen.extend(chunk.events().map(|event| event.revision));
            Read::More
        });
    assert!(matches!(outcome, Err(StoreError::Corrupt { .. })), "{outcome:?}");
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    log.close().unwrap();
}

#[test]
fn one_damaged_copy_of_a_segment_header_is_harmless_and_two_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let log = open(&path).unwrap();
    fill(&log, 3);
    log.close().unwrap();
    let segment = files(&path, "seg").remove(0);
    flip(&segment, 40);
    let log = open(&path).unwrap();
    assert_eq!(read(&log).unwrap(), [1, 2, 3]);
    log.close().unwrap();
    flip(&segment, 4096 + 40);
    assert!(matches!(open(&path), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_damaged_manifest_is_refused_and_a_missing_one_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let log = open(&path).unwrap();
    fill(&log, 250);
    log.close().unwrap();
    let manifest = path.join("MANIFEST");
    let kept = std::fs::read(&manifest).unwrap();
    flip(&manifest, 30);
    match open(&path) {
        Err(StoreError::Corrupt { path, .. }) => assert_eq!(path, manifest),
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(&manifest).unwrap();
    let log = open(&path).unwrap();
    assert_eq!(read(&log).unwrap().len(), 250);
    log.close().unwrap();
    assert_eq!(std::fs::read(&manifest).unwrap(), kept);
}

#[test]
fn damaged_derived_files_change_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let log = open(&path).unwrap();
    fill(&log, 250);
    log.close().unwrap();
    for file in files(&path, "idx").into_iter().chain([path.join("checkpoint")]) {
        for at in [20, 60] {
            flip(&file, at);
            let log = open(&path).unwrap();
            assert_eq!(read(&log).unwrap().len(), 250);
            log.close().unwrap();
        }
    }
}

#[test]
fn a_log_that_ends_before_what_its_checkpoint_knows_to_be_synced_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let log = open(&path).unwrap();
    fill(&log, 20);
    log.close().unwrap();
    let segment = files(&path, "seg").pop().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    // Zeros look like a place that was never written; the checkpoint of the orderly close says that it was.
    for kept in [DATA_START, DATA_START + 5 * 704] {
        let mut bytes = whole.clone();
        bytes[kept..].fill(0);
        std::fs::write(&segment, bytes).unwrap();
        match open(&path) {
            Err(StoreError::Corrupt { path, .. }) => assert_eq!(path, segment),
            other => panic!("{other:?}"),
        }
    }
    std::fs::write(&segment, whole).unwrap();
    let log = open(&path).unwrap();
    assert_eq!(read(&log).unwrap().len(), 20);
    log.close().unwrap();
}

#[test]
fn another_program_s_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["LOCK", "CURRENT", "000003.log"] {
        std::fs::write(dir.path().join(name), b"theirs").unwrap();
    }
    assert!(matches!(open(dir.path()), Err(StoreError::Format { .. })));
    assert_eq!(std::fs::read(dir.path().join("LOCK")).unwrap(), b"theirs");
}

/// What is read of an entity with events, states and commands.
type Everything = (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<String>);

fn everything(log: &Log) -> Result<Everything, StoreError> {
    let (mut events, mut states, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    log.read_entity(&key("a"), 1, Wait::AsLongAsItTakes, &mut |event| {
        events.push([event.payload, event.metadata].concat());
        Read::More
    })?;
    for at in 1..=log.revision(&key("a"))? {
        log.read_state(&key("a"), at, Wait::AsLongAsItTakes, &mut |state| {
            states.push([state.payload, state.metadata].concat())
        })?;
    }
    log.read_commands(&key("a"), 0, Wait::AsLongAsItTakes, &mut |command| {
        let rejection = command.rejection.map(|rejection| (rejection.name, rejection.version, rejection.payload));
        commands.push(format!("{} {:?} {} {rejection:?}", command.id, command.fingerprint, command.revision));
        Read::More
    })?;
    Ok((events, states, commands))
}

#[test]
fn a_flipped_bit_in_an_event_a_state_or_a_command_never_gives_another_answer() {
    let (door, path) = (SimDoor::new(3), Path::new("/data/s"));
    let log = Log::open(Arc::new(door.clone()), path, LogOptions::default()).unwrap();
    let value = Record { name: "value", version: 3, payload: b"a payload" };
    let other = Record { name: "other", version: 4, payload: b"another payload" };
    let entity = key("a");
    let unit =
        |first_revision, content| Unit { entity: &entity, first_revision, content, command: None, metadata: &[] };
    let command = |id, rejection| Some(Command { id, fingerprint: [5; 16], rejection });
    let events = [value, other];
    for unit in [
        Unit { metadata: b"trace", ..unit(1, Content::Events(&events)) },
        Unit { command: command("first", Some(other)), metadata: b"why", ..unit(3, Content::Events(&[])) },
        Unit { command: command("second", None), metadata: b"what", ..unit(3, Content::State(value)) },
        unit(4, Content::State(other)),
        Unit { command: command("third", None), ..unit(5, Content::Events(&[])) },
    ] {
        log.append(&unit).unwrap();
    }
    log.close().unwrap();
    let whole = door.after_kill();
    let log = Log::open(Arc::new(whole.clone()), path, LogOptions::default()).unwrap();
    let expected = everything(&log).unwrap();
    assert_eq!((expected.0.len(), expected.1.len(), expected.2.len()), (2, 2, 3));
    log.close().unwrap();
    let segment = path.join("00000001.seg");
    let mut found = 0;
    // Every seventh bit: one of every byte, each time another.
    for bit in (0..8 * 1200).step_by(7) {
        let rotten = whole.after_kill();
        rotten.flip(&segment, DATA_START as u64 + bit / 8, 1 << (bit % 8)).unwrap();
        match Log::open(Arc::new(rotten), path, LogOptions::default()).and_then(|log| everything(&log)) {
            Ok(seen) => assert_eq!(seen, expected, "bit {bit}"),
            Err(StoreError::Corrupt { path, .. }) => {
                assert_eq!(path, segment);
                found += 1;
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
    assert!(found > 700, "{found}");
}
