//! Appending to the log, 256 bytes a record, beside the bare loop of `pwrite` and `fdatasync` into a file that was
//! written before. A *writer* waits for its unit before it appends the next; 64 of them share the syncs.
//!
//! `EGO_BENCH_FOLDER` names a folder on the disk to measure; without it the target directory's is taken.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to say")]
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the clock and the baseline go past the door")]

use criterion::{Criterion, criterion_group, criterion_main};
use ego_core::io::RealDoor;
use ego_core::journal::{Content, EntityKey, Journal, Outcome, Record, Unit};
use ego_core::log::{Log, LogOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAYLOAD: [u8; 256] = [0x5a; 256];
const RAW_FILE_BYTES: usize = 64 << 20;

fn folder() -> tempfile::TempDir {
    let parent =
        std::env::var_os("EGO_BENCH_FOLDER").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(parent).unwrap()
}

fn raw_loop(path: &Path, iterations: u64) -> Duration {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    if file.metadata().unwrap().len() == 0 {
        file.write_all_at(&vec![0; RAW_FILE_BYTES], 0).unwrap();
        file.sync_all().unwrap();
    }
    let places = (RAW_FILE_BYTES / PAYLOAD.len()) as u64;
    let start = Instant::now();
    for number in 0..iterations {
        file.write_all_at(&PAYLOAD, number % places * PAYLOAD.len() as u64).unwrap();
        file.sync_data().unwrap();
    }
    start.elapsed()
}

struct Writer {
    key: EntityKey,
    revision: u64,
    ticket: u64,
}

impl Writer {
    fn append(&mut self, log: &Log) {
        self.revision += 1;
        let record = Record { name: "bench.written", version: 1, payload: &PAYLOAD };
        let content = Content::Events(&[record]);
        let unit = Unit { entity: &self.key, first_revision: self.revision, content, command: None, metadata: &[] };
        self.ticket = log.append(&unit).unwrap();
    }
}

fn log_loop(path: &Path, writers: usize, iterations: u64) -> Duration {
    let log = Log::open(Arc::new(RealDoor), path, LogOptions::default()).unwrap();
    let driver = std::thread::current();
    log.on_settled(Arc::new(move || driver.unpark()));
    let kind: Arc<str> = Arc::from("bench");
    let mut all: Vec<Writer> = (0..writers)
        .map(|number| {
            let key = EntityKey::new(Arc::clone(&kind), Arc::from(format!("w-{number}")));
            let revision = log.revision(&key).unwrap();
            Writer { key, revision, ticket: 0 }
        })
        .collect();
    let mut begun = 0;
    let start = Instant::now();
    loop {
        let settled = log.settled();
        let before = begun;
        for writer in &mut all {
            if writer.ticket <= settled && begun < iterations {
                writer.append(&log);
                begun += 1;
            }
        }
        if begun > before {
            log.kick();
        } else if begun == iterations && all.iter().all(|writer| writer.ticket <= settled) {
            break;
        } else {
            std::thread::park();
        }
    }
    let elapsed = start.elapsed();
    assert!(all.iter().all(|writer| matches!(log.outcome(writer.ticket), Outcome::Stored)));
    log.close().unwrap();
    elapsed
}

fn append(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = criterion.benchmark_group("append");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1_200));
    group.bench_function("raw", |bencher| {
        bencher.iter_custom(|iterations| raw_loop(&folder.path().join("raw"), iterations));
    });
    for writers in [1, 64] {
        let store = folder.path().join(format!("store-{writers}"));
        group.bench_function(format!("writers_{writers}"), |bencher| {
            bencher.iter_custom(|iterations| log_loop(&store, writers, iterations));
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
