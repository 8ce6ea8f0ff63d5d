use super::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

fn content(door: &SimDoor, name: &str) -> Option<Vec<u8>> {
    let file = door.open(&path(name), Mode::Read).ok()?;
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// A durable file of `len` bytes of 1.
fn durable(door: &SimDoor, name: &str, len: usize) -> Arc<dyn File> {
    let file = door.open(&path(name), Mode::Create).unwrap();
    file.write_at(&vec![1; len], 0).unwrap();
    file.datasync().unwrap();
    door.sync_dir(Path::new("/data")).unwrap();
    file
}

fn bytes(policy: Bytes) -> Crash {
    Crash { bytes: policy, names: Names::Kept }
}

#[test]
fn a_crash_takes_what_no_sync_covers() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 10);
    file.write_at(&[2; 5], 0).unwrap();
    assert_eq!(content(&door, "a").unwrap(), [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap(), [1; 10]);
    assert_eq!(content(&door.after_kill(), "a").unwrap(), content(&door, "a").unwrap());
    file.datasync().unwrap();
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a"), content(&door, "a"));
}

#[test]
fn a_sync_covers_its_own_file_alone() {
    let door = SimDoor::new(1);
    let (a, b) = (durable(&door, "a", 4), durable(&door, "b", 4));
    a.write_at(&[2; 4], 0).unwrap();
    b.write_at(&[2; 4], 0).unwrap();
    a.datasync().unwrap();
    let left = door.after_crash(Crash::HARSH, 0);
    assert_eq!((content(&left, "a").unwrap(), content(&left, "b").unwrap()), (vec![2; 4], vec![1; 4]));
}

#[test]
fn a_name_needs_a_sync_of_its_directory() {
    let door = SimDoor::new(1);
    let file = door.open(&path("a"), Mode::Create).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert!(content(&door.after_crash(Crash::HARSH, 0), "a").is_none());
    assert_eq!(content(&door.after_crash(Crash::MILD, 0), "a").unwrap(), b"x");
    door.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap(), b"x");
}

#[test]
fn a_rename_without_a_directory_sync_may_leave_either_file() {
    let door = SimDoor::new(1);
    durable(&door, "old", 1);
    let new = durable(&door, "new", 3);
    door.rename(&path("new"), &path("old")).unwrap();
    new.write_at(&[9], 0).unwrap();
    assert_eq!(content(&door, "old").unwrap(), [9, 1, 1]);
    assert!(content(&door, "new").is_none());
    let lost = door.after_crash(Crash::HARSH, 0);
    assert_eq!((content(&lost, "old").unwrap(), content(&lost, "new").unwrap()), (vec![1], vec![1; 3]));
    let kept = door.after_crash(Crash { bytes: Bytes::Dropped, names: Names::Kept }, 0);
    assert_eq!((content(&kept, "old").unwrap(), content(&kept, "new")), (vec![1; 3], None));
}

#[test]
fn an_unlink_without_a_directory_sync_may_come_back() {
    let door = SimDoor::new(1);
    durable(&door, "a", 1);
    door.unlink(&path("a")).unwrap();
    assert_eq!(door.kind(&path("a")).unwrap(), PathKind::Missing);
    assert!(content(&door.after_crash(Crash::HARSH, 0), "a").is_some());
    assert!(content(&door.after_crash(Crash::MILD, 0), "a").is_none());
}

#[test]
fn a_lost_directory_takes_its_files_along() {
    let door = SimDoor::new(1);
    door.create_dir(&path("s")).unwrap();
    let file = door.open(&path("s/a"), Mode::Create).unwrap();
    file.sync().unwrap();
    door.sync_dir(&path("s")).unwrap();
    let left = door.after_crash(Crash::HARSH, 0);
    assert_eq!(left.kind(&path("s")).unwrap(), PathKind::Missing);
    assert_eq!(left.kind(&path("s/a")).unwrap(), PathKind::Missing);
    assert_eq!(left.open(&path("s/a"), Mode::Create).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_failed_sync_keeps_the_cache_marks_it_clean_and_never_reaches_the_disk() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 4);
    door.fail(Selector::call(Call::Datasync), 1, Fault::Eio, Times::Once);
    file.write_at(&[2; 4], 0).unwrap();
    assert_eq!(file.datasync().unwrap_err().raw_os_error(), Some(5));
    file.datasync().unwrap();
    file.sync().unwrap();
    assert_eq!(content(&door.after_kill(), "a").unwrap(), [2; 4]);
    assert_eq!(content(&door.after_crash(Crash::MILD, 0), "a").unwrap(), [1; 4]);
}

#[test]
fn every_descriptor_is_told_once_of_a_failed_sync() {
    let door = SimDoor::new(1);
    let (a, b) = (durable(&door, "a", 4), door.open(&path("a"), Mode::Write).unwrap());
    b.write_at(&[2; 4], 0).unwrap();
    door.fail(Selector::call(Call::Datasync), 1, Fault::Eio, Times::Once);
    a.datasync().unwrap_err();
    assert_eq!(b.datasync().unwrap_err().raw_os_error(), Some(5));
    b.datasync().unwrap();
    a.datasync().unwrap();
    door.open(&path("a"), Mode::Write).unwrap().datasync().unwrap();
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap(), [1; 4]);
}

#[test]
fn a_page_that_was_lost_goes_to_the_disk_whole_when_it_is_dirty_again() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 8192);
    door.fail(Selector::call(Call::Datasync), 1, Fault::Eio, Times::Once);
    file.write_at(&[2; 8192], 0).unwrap();
    file.datasync().unwrap_err();
    file.write_at(&[3], 4095).unwrap();
    file.datasync().unwrap();
    let left = content(&door.after_crash(Crash::HARSH, 0), "a").unwrap();
    assert_eq!(left, [vec![2; 4095], vec![3], vec![1; 4096]].concat());
}

#[test]
fn a_failed_sync_can_bring_a_part_or_take_the_cache_back() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 4);
    door.set_after_failed_sync(AfterFailedSync::Reverted);
    door.fail(Selector::call(Call::Datasync), 1, Fault::Short, Times::Once);
    file.write_at(&[2], 0).unwrap();
    file.write_at(&[3], 1).unwrap();
    file.datasync().unwrap_err();
    assert_eq!(content(&door, "a").unwrap(), [2, 1, 1, 1]);
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap(), [2, 1, 1, 1]);
}

#[test]
fn faults_do_what_they_say() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 4);
    let write = |fault| {
        door.fail(Selector::call(Call::Write), 1, fault, Times::Once);
        let said = file.write_at(&[7; 4], 0);
        let left = content(&door, "a").unwrap();
        file.write_at(&[1; 4], 0).unwrap();
        door.heal();
        (said.err().and_then(|e| e.raw_os_error()), left)
    };
    assert_eq!(write(Fault::Eio), (Some(5), vec![1; 4]));
    assert_eq!(write(Fault::NoSpace), (Some(28), vec![1; 4]));
    assert_eq!(write(Fault::Interrupted), (None, vec![7; 4]));
    assert_eq!(write(Fault::Short), (Some(5), vec![7, 7, 1, 1]));

    door.fail(Selector::call(Call::Datasync), 1, Fault::Interrupted, Times::Once);
    file.write_at(&[8; 4], 0).unwrap();
    assert_eq!(file.datasync().unwrap_err().kind(), io::ErrorKind::Interrupted);
    file.datasync().unwrap();
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap(), [8; 4]);

    door.fail(Selector::call(Call::Rename), 1, Fault::Short, Times::Once);
    assert!(door.rename(&path("a"), &path("b")).is_err());
    assert_eq!(content(&door, "b").unwrap(), [8; 4]);
}

#[test]
fn a_fault_strikes_the_chosen_call_once_or_for_ever() {
    let door = SimDoor::new(1);
    let (a, b) = (durable(&door, "seg-1", 4), durable(&door, "map-1", 4));
    door.fail(Selector::call(Call::Write).on("seg-#"), 2, Fault::Eio, Times::Once);
    let tries = |file: &Arc<dyn File>| [(); 4].map(|()| file.write_at(&[1], 0).is_ok());
    assert_eq!(tries(&b), [true; 4]);
    assert_eq!(tries(&a), [true, false, true, true]);
    door.fail(Selector::any(), 3, Fault::NoSpace, Times::ForEver);
    assert_eq!(tries(&a), [true, true, false, false]);
    assert_eq!(door.struck(), 3);
    door.heal();
    assert_eq!(tries(&a), [true; 4]);
}

#[test]
fn a_fault_can_choose_the_thread() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 4);
    door.fail(Selector::call(Call::Write).by("ego-committer"), 1, Fault::Eio, Times::ForEver);
    file.write_at(&[1], 0).unwrap();
    let there = file.clone();
    let named =
        std::thread::Builder::new().name("ego-committer".into()).spawn(move || there.write_at(&[1], 0).is_err());
    assert!(named.unwrap().join().unwrap());
    let site = |thread: &str| Site { thread: thread.into(), file: "a".into(), call: Call::Write };
    assert_eq!(door.counts()[&site("ego-committer")], 1);
    assert_eq!(door.counts()[&site("caller")], 2);
}

#[test]
fn after_a_crash_every_call_fails_and_a_new_machine_starts() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 4);
    let LockOutcome::Held(lock) = door.lock(&path("LOCK")).unwrap() else { panic!("locked by nobody") };
    door.crash_before(Selector::call(Call::Write), 1);
    assert!(file.write_at(&[2; 4], 0).is_err());
    assert!(door.crashed());
    assert!(file.datasync().is_err());
    assert!(door.open(&path("a"), Mode::Read).is_err());
    let next = door.after_crash(Crash::MILD, 0);
    assert_eq!(content(&next, "a").unwrap(), [1; 4]);
    assert!(matches!(next.lock(&path("LOCK")).unwrap(), LockOutcome::Held(_)));
    assert_ne!(next.pid(), door.pid());
    drop(lock);
}

#[test]
fn one_lock_has_one_holder() {
    let door = SimDoor::new(1);
    let LockOutcome::Held(lock) = door.lock(&path("LOCK")).unwrap() else { panic!("locked by nobody") };
    let pid = door.pid();
    assert!(matches!(door.lock(&path("LOCK")).unwrap(), LockOutcome::Taken(Some(p)) if p == pid));
    drop(lock);
    let LockOutcome::Held(lock) = door.lock(&path("LOCK")).unwrap() else { panic!("locked by nobody") };
    lock.abandon();
    drop(lock);
    assert!(matches!(door.lock(&path("LOCK")).unwrap(), LockOutcome::Taken(_)));
}

#[test]
fn crashes_choose_among_the_changes_in_order() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 3);
    (0..3).for_each(|at| file.write_at(&[2], at).unwrap());
    let left = |policy| content(&door.after_crash(bytes(policy), 5), "a").unwrap();
    assert_eq!(door.unsynced(), (3, 0));
    assert_eq!(left(Bytes::Prefix(2)), [2, 2, 1]);
    assert_eq!(left(Bytes::Without(1)), [2, 1, 2]);
    assert_eq!(left(Bytes::Only(1)), [1, 2, 1]);
    assert_eq!(left(Bytes::Some), left(Bytes::Some));
}

#[test]
fn a_torn_write_leaves_whole_blocks() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 8192);
    file.write_at(&[2; 5000], 100).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        for policy in [Bytes::Torn(512), Bytes::Cut(512)] {
            let left = content(&door.after_crash(bytes(policy), seed), "a").unwrap();
            for (index, block) in left.chunks(512).enumerate() {
                let mine = (100..5100).contains(&(index * 512 + 511));
                let tail = if index == 0 { &block[100..] } else { block };
                assert!(tail.iter().all(|b| *b == tail[0]) || !mine);
            }
            if policy == Bytes::Cut(512) {
                let new = left.iter().filter(|b| **b == 2).count();
                assert!(left[100..100 + new].iter().all(|b| *b == 2));
            }
            seen.insert(left);
        }
    }
    assert!(seen.len() > 40);
}

#[test]
fn a_size_can_be_ahead_of_its_bytes() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 2);
    file.write_at(&[3; 4], 2).unwrap();
    let left = |policy| content(&door.after_crash(bytes(policy), 5), "a").unwrap();
    assert_eq!(left(Bytes::SizeAhead), [1, 1, 0, 0, 0, 0]);
    assert_eq!(left(Bytes::Stale), [1; 6]);
}

#[test]
fn what_was_cut_off_reads_as_zeros_when_the_file_grows() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 5000);
    file.set_len(10).unwrap();
    file.set_len(20).unwrap();
    assert_eq!(content(&door, "a").unwrap(), [vec![1; 10], vec![0; 10]].concat());
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap(), [1; 5000]);
    file.datasync().unwrap();
    assert_eq!(content(&door.after_crash(Crash::HARSH, 0), "a").unwrap().len(), 20);
    assert_eq!(file.read_at(&mut [0; 2], 19).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_full_disk_takes_what_fits_and_lets_old_blocks_be_overwritten() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 8192);
    door.set_capacity(Some(3));
    file.write_at(&[2; 8192], 0).unwrap();
    assert_eq!(file.write_at(&[3; 8192], 8192).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.size().unwrap(), 12288);
    door.set_capacity(None);
    file.write_at(&[3; 8192], 8192).unwrap();
    door.set_capacity(Some(0));
    assert!(door.open(&path("b"), Mode::Create).unwrap().write_at(&[1], 0).is_err());
    door.unlink(&path("a")).unwrap();
    door.set_capacity(Some(1));
    door.open(&path("b"), Mode::Create).unwrap().write_at(&[1], 0).unwrap();
}

#[test]
fn a_held_call_does_nothing_until_it_is_let_go() {
    let door = SimDoor::new(1);
    let file = durable(&door, "a", 4);
    let gate = door.hold(Selector::call(Call::Write));
    let there = file.clone();
    let writer = std::thread::spawn(move || there.write_at(&[2; 4], 0));
    assert!(gate.reached(1, LIMIT));
    assert_eq!(content(&door, "a").unwrap(), [1; 4]);
    drop(gate);
    writer.join().unwrap().unwrap();
    assert_eq!(content(&door, "a").unwrap(), [2; 4]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let door = SimDoor::new(seed);
        door.start_trace();
        let mut salt = [0; 16];
        door.random(&mut salt);
        durable(&door, "a", 9).write_at(&salt, 3).unwrap();
        let clocks = (door.wall_nanos(), door.wall_nanos());
        let trace: Vec<String> = door.trace().iter().map(|call| format!("{call:?}")).collect();
        (door.after_crash(bytes(Bytes::Torn(512)), seed).fingerprint(), trace, clocks, salt)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).3, run(8).3);
    assert_eq!(run(7).1.len(), 5);
}

#[test]
fn file_classes_drop_numbers() {
    assert_eq!(file_class(Path::new("/data/s/00000012.seg.next")), "#.seg.next");
    assert_eq!(file_class(Path::new("/data/s/LOCK")), "LOCK");
}
