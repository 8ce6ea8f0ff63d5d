//! Catching up on a log, 256 bytes an event, beside a bare read of the same files with a CRC over every byte; and what an event
//! costs that a filter does not let through. Each iteration is one event. At the live end: what an event costs each of 100
//! followers, the commit left out.
//!
//! `EGO_BENCH_FOLDER` names a folder on the disk to measure; without it the target directory's is taken.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to say")]
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the clock and the baseline go past the door")]

use criterion::{Criterion, criterion_group, criterion_main};
use ego_core::feed::Filter;
use ego_core::io::RealDoor;
use ego_core::journal::{Content, EntityKey, Journal, Record, Unit, Wait};
use ego_core::log::{Log, LogOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVENTS: u64 = 400_000;
const ENTITIES: u64 = 1_000;
const PAYLOAD: [u8; 256] = [0x5a; 256];
const READ_BYTES: usize = 256 << 10;

fn folder() -> tempfile::TempDir {
    let parent =
        std::env::var_os("EGO_BENCH_FOLDER").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(parent).unwrap()
}

fn filled(store: &Path) -> Arc<Log> {
    let log = Arc::new(Log::open(Arc::new(RealDoor), store, LogOptions::default()).unwrap());
    let kind: Arc<str> = Arc::from("bench");
    let keys: Vec<_> =
        (0..ENTITIES).map(|n| EntityKey::new(Arc::clone(&kind), Arc::from(format!("entity-{n}")))).collect();
    let mut last = 0;
    for number in 0..EVENTS {
        let entity = keys.get((number % ENTITIES) as usize).unwrap();
        let name = if number % 100 == 0 { "bench.rare" } else { "bench.written" };
        let content = Content::Events(&[Record { name, version: 1, payload: &PAYLOAD }]);
        let first_revision = number / ENTITIES + 1;
        last = log.append(&Unit { entity, first_revision, content, command: None, metadata: &[] }).unwrap();
        if number % 512 == 511 {
            log.kick();
        }
    }
    log.kick();
    while log.settled() < last {
        std::thread::yield_now();
    }
    log
}

/// Reads what a follower reads, and nothing but that.
fn bare(store: &Path, bytes: u64) -> u32 {
    let mut files: Vec<_> = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    let (mut buffer, mut crc, mut left) = (vec![0; READ_BYTES], 0, bytes);
    for path in files {
        let file = std::fs::File::open(&path).unwrap();
        let (mut at, len) = (0, file.metadata().unwrap().len());
        while at < len && left > 0 {
            let piece = (READ_BYTES as u64).min(len - at).min(left) as usize;
            let piece = buffer.get_mut(..piece).unwrap();
            file.read_exact_at(piece, at).unwrap();
            crc = crc32c::crc32c_append(crc, piece);
            at += piece.len() as u64;
            left -= piece.len() as u64;
        }
    }
    crc
}

/// Follows everything once; returns how many events were handed out.
fn followed(log: &Arc<Log>, filter: &Filter, wait: Wait) -> u64 {
    let driver = std::thread::current();
    let wake = Arc::new(move || driver.unpark());
    let mut follower = Arc::<Log>::clone(log).follow(0, filter.clone(), wake).unwrap();
    let (mut events, mut bytes) = (0, 0);
    while follower.position() < EVENTS {
        match follower.next(wait).unwrap() {
            Some(chunk) => {
                events += chunk.len() as u64;
                bytes += chunk.events().map(|event| event.event.payload.len() + event.id.len()).sum::<usize>();
            }
            None => std::thread::park(),
        }
    }
    std::hint::black_box(bytes);
    events
}

/// Commits a batch at a time and measures what the followers do with it; each iteration is one event of one follower.
fn live(store: &Path, filter: &Filter, iterations: u64) -> Duration {
    const FOLLOWERS: u64 = 100;
    const BATCH: u64 = 512;
    let log = Arc::new(Log::open(Arc::new(RealDoor), store, LogOptions::default()).unwrap());
    let position = log.stats().position;
    let follow = |_| Arc::<Log>::clone(&log).follow(position, filter.clone(), Arc::new(|| {})).unwrap();
    let mut followers: Vec<_> = (0..FOLLOWERS).map(follow).collect();
    let key = EntityKey::new(Arc::from("bench"), Arc::from("live"));
    let first = log.revision(&key).unwrap() + 1;
    let rounds = iterations.div_ceil(FOLLOWERS * BATCH);
    let mut spent = Duration::ZERO;
    for round in 0..rounds {
        let record = Record { name: "bench.written", version: 1, payload: &PAYLOAD };
        let mut last = 0;
        for number in 0..BATCH {
            let first_revision = first + round * BATCH + number;
            let content = Content::Events(&[record]);
            last = log.append(&Unit { entity: &key, first_revision, content, command: None, metadata: &[] }).unwrap();
        }
        log.kick();
        while log.settled() < last {
            std::thread::yield_now();
        }
        let start = Instant::now();
        for follower in &mut followers {
            while let Some(chunk) = follower.next(Wait::Never).unwrap() {
                std::hint::black_box(chunk.len());
            }
            assert_eq!(follower.position(), position + (round + 1) * BATCH);
        }
        spent += start.elapsed();
    }
    drop(followers);
    log.close().unwrap();
    spent.mul_f64(iterations as f64 / (rounds * FOLLOWERS * BATCH) as f64)
}

fn per_event(iterations: u64, mut run: impl FnMut()) -> Duration {
    let rounds = iterations.div_ceil(EVENTS);
    let start = Instant::now();
    (0..rounds).for_each(|_| run());
    start.elapsed().mul_f64(iterations as f64 / (rounds * EVENTS) as f64)
}

fn feed(criterion: &mut Criterion) {
    let folder = folder();
    let store = folder.path().join("store");
    let log = filled(&store);
    let bytes = log.stats().bytes;
    let mut group = criterion.benchmark_group("feed");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1_200));
    group.bench_function("raw_read_and_crc", |bencher| {
        bencher.iter_custom(|iterations| per_event(iterations, || assert_ne!(bare(&store, bytes), 0)));
    });
    let named = |name: &str| Filter { names: Some(vec![Box::from(name)]), ..Filter::default() };
    let one = Filter { entity: Some(EntityKey::new(Arc::from("bench"), Arc::from("entity-7"))), ..Filter::default() };
    let runs = [
        ("all", Filter::default(), Wait::AsLongAsItTakes, EVENTS),
        ("all_read_ahead", Filter::default(), Wait::Never, EVENTS),
        ("none_of_a_name", named("bench.unknown"), Wait::AsLongAsItTakes, 0),
        ("hundredth_by_name", named("bench.rare"), Wait::AsLongAsItTakes, EVENTS / 100),
        ("one_entity", one, Wait::AsLongAsItTakes, EVENTS / ENTITIES),
    ];
    for (name, filter, wait, wanted) in runs {
        group.bench_function(name, |bencher| {
            bencher
                .iter_custom(|iterations| per_event(iterations, || assert_eq!(followed(&log, &filter, wait), wanted)));
        });
    }
    log.close().unwrap();
    let store = folder.path().join("live");
    for (name, filter) in [("live_all", Filter::default()), ("live_none_of_a_name", named("bench.unknown"))] {
        group.bench_function(name, |bencher| bencher.iter_custom(|iterations| live(&store, &filter, iterations)));
    }
    group.finish();
}

criterion_group!(benches, feed);
criterion_main!(benches);
