//! Works through cases on all processors, with a watchdog, and counts.

use super::history::{Sort, Trouble};
use super::settings::Settings;
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How long one case may take before it counts as hung, in ticks.
const PATIENCE: u32 = 40;
const TICK: Duration = Duration::from_secs(1);
/// Sorts of failures that are printed.
const SHOWN: usize = 40;

/// A piece of work that reports cases.
pub(crate) type Work = Box<dyn FnOnce(&Report) + Send>;

#[derive(Default)]
struct Inner {
    cases: HashSet<u128>,
    counts: [u64; 4],
    /// For each sort of failure, its first case and how many there were.
    failures: BTreeMap<String, (String, u64)>,
    running: Vec<Option<(String, u32)>>,
    left: usize,
}

impl Inner {
    fn fail(&mut self, sort: Sort, case: &str, what: &str) {
        self.counts[sort as usize] += 1;
        let story = case.split('/').next().unwrap_or_default();
        let alike: String = what.chars().filter(|c| !c.is_ascii_digit()).collect();
        let line = || (format!("EGO_SIM_CASE='{case}' {sort:?}: {what}"), 0);
        self.failures.entry(format!("{story} {alike}")).or_insert_with(line).1 += 1;
    }
}

/// Where workers report.
#[derive(Default)]
pub(crate) struct Report {
    inner: Mutex<Inner>,
    finished: Condvar,
}

impl Report {
    /// Counts a case by what makes it distinct; false where it was done before.
    pub(crate) fn is_new(&self, case: u128) -> bool {
        self.inner.lock().cases.insert(case)
    }

    /// Notes what a case came to, with the name that replays it.
    pub(crate) fn note(&self, case: &str, outcome: Result<(), Trouble>) {
        let Err(trouble) = outcome else { return };
        let mut inner = self.inner.lock();
        inner.fail(trouble.sort, case, &trouble.what);
    }

    fn begin(&self, worker: usize, name: &str) {
        self.inner.lock().running[worker] = Some((name.to_owned(), 0));
    }
}

/// A hash that tells cases apart.
pub(crate) fn distinct(parts: &[&[u8]]) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}

/// A sweep under way.
pub(crate) struct Sweep {
    report: Arc<Report>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl Sweep {
    pub(crate) fn new() -> Self {
        Self { report: Arc::default(), panics: count_panics() }
    }

    /// Does all of this work, in any order; gives up where something hangs.
    pub(crate) fn drive(&self, work: Vec<(String, Work)>) {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        {
            let mut inner = self.report.inner.lock();
            if inner.counts[Sort::Hung as usize] > 0 {
                return;
            }
            inner.running = vec![None; workers];
            inner.left = workers;
        }
        let queue = Arc::new(Mutex::new(VecDeque::from(work)));
        for worker in 0..workers {
            let (report, queue) = (self.report.clone(), queue.clone());
            std::thread::spawn(move || {
                loop {
                    let next = queue.lock().pop_front();
                    let Some((name, work)) = next else { break };
                    report.begin(worker, &name);
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&report))) {
                        report.note(&name, Err(Trouble::wrong(format!("panic: {}", text_of(&*panic)))));
                    }
                }
                let mut inner = report.inner.lock();
                inner.running[worker] = None;
                inner.left -= 1;
                report.finished.notify_all();
            });
        }
        watch(&self.report);
    }

    /// Prints the summary line and fails the test where anything was broken.
    pub(crate) fn finish(&self, title: &str, settings: &Settings) {
        let mut inner = self.report.inner.lock();
        for panic in self.panics.lock().iter() {
            inner.fail(Sort::Wrong, "", &format!("a thread panicked: {panic}"));
        }
        summarise(title, settings, &inner);
        let broken: u64 = inner.counts.iter().sum();
        assert_eq!(broken, 0, "{broken} cases broke a promise");
    }
}

/// Waits for the workers; a case that takes too long is hung and ends the sweep.
fn watch(report: &Report) {
    let mut inner = report.inner.lock();
    while inner.left > 0 {
        if !report.finished.wait_for(&mut inner, TICK).timed_out() {
            continue;
        }
        let mut hung = None;
        for (name, ticks) in inner.running.iter_mut().flatten() {
            *ticks += 1;
            if *ticks > PATIENCE {
                hung = Some(name.clone());
            }
        }
        if let Some(name) = hung {
            inner.fail(Sort::Hung, &name, "nothing moved for too long");
            return;
        }
    }
}

fn summarise(title: &str, settings: &Settings, inner: &Inner) {
    let [lost, duplicated, hung, wrong] = inner.counts;
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| writeln!(out, "{line}").unwrap_or_default();
    for (line, count) in inner.failures.values().take(SHOWN) {
        say(format!("EGO_SIM_SEED={} {line} ({count} alike)", settings.seed));
    }
    let (cases, seed) = (inner.cases.len(), settings.seed);
    say(format!("{title}: cases={cases} lost={lost} duplicated={duplicated} hung={hung} seed={seed} wrong={wrong}"));
}

/// Collects the panics of every thread, those that the log starts included.
fn count_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let seen = panics.clone();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        if thread.name().is_some_and(|name| name.starts_with("ego-")) {
            seen.lock().push(format!("{info}"));
        }
    }));
    panics
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
