//! The scripts. Each is one story that a store lives through; a sweep breaks it at every call.

mod notes;

use super::history::{Fate, Form, History, LONG_NAMES};
use super::pool::{Report, Sweep, Work};
use super::session::{STORE, Session, Step};
use super::settings::Settings;
use ego_core::io::sim::{AfterFailedSync, Bytes, Call, Crash, Fault, Names, Selector, SimDoor, Site, Times};
use ego_core::log::LogOptions;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A story, and what went before it undisturbed.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    options: fn(LogOptions) -> LogOptions,
    before: fn(&mut Session) -> Step,
    script: fn(&mut Session) -> Step,
}

/// Undisturbed runs of a story.
const RUNS: usize = 3;
/// A segment that holds a handful of units.
const TINY: u64 = 64 * 1024;

impl Scenario {
    fn options(&self) -> LogOptions {
        let base = LogOptions {
            shards: 8,
            segment_bytes: 256 * 1024,
            max_unit_bytes: 80_000,
            idle_mark_millis: 0,
            ..LogOptions::default()
        };
        (self.options)(base)
    }

    /// A machine on which what goes before the story has happened.
    fn start(&self, seed: u64) -> Session {
        let mut session = Session::new(SimDoor::new(seed), self.options(), History::default(), true);
        let _step = (self.before)(&mut session);
        session.kill();
        session
    }

    /// The calls of the undisturbed story, each site with the most that were seen: threads race, and a few runs differ.
    fn sites(&self, start: &Session, report: &Report) -> BTreeMap<Site, u64> {
        let mut most = BTreeMap::new();
        for _ in 0..RUNS {
            let mut session = start.fork(false);
            let before = session.door.counts();
            self.play(&mut session);
            session.abandon();
            report.note(self.name, session.verdict());
            for (site, count) in session.door.counts() {
                let count = count - before.get(&site).copied().unwrap_or(0);
                let most = most.entry(site).or_default();
                *most = count.max(*most);
            }
        }
        most
    }

    pub(crate) fn play(&self, session: &mut Session) {
        let _step = (self.script)(session);
    }
}

/// A story ready to be disturbed.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) scenario: Scenario,
    pub(crate) start: Arc<Session>,
    sites: BTreeMap<Site, u64>,
}

impl Prepared {
    /// Every call of the story as (site, number within the site).
    pub(crate) fn calls(&self) -> impl Iterator<Item = (Site, u64)> + '_ {
        self.sites.iter().flat_map(|(site, count)| (1..=*count).map(move |nth| (site.clone(), nth)))
    }
}

/// Tells every story undisturbed, and counts its calls.
pub(crate) fn prepare(sweep: &Sweep, settings: &Settings) -> Vec<Prepared> {
    let prepared = Arc::new(Mutex::new(Vec::new()));
    let wanted = |scenario: &Scenario| settings.wants(scenario.name);
    let work = all().into_iter().filter(wanted).map(|scenario| {
        let (prepared, seed) = (prepared.clone(), settings.seed);
        let work: Work = Box::new(move |report| {
            let start = Arc::new(scenario.start(seed));
            let sites = scenario.sites(&start, report);
            prepared.lock().push(Prepared { scenario, start, sites });
        });
        (scenario.name.to_owned(), work)
    });
    sweep.drive(work.collect());
    let mut prepared = std::mem::take(&mut *prepared.lock());
    prepared.sort_by_key(|prepared| prepared.scenario.name);
    prepared
}

fn story(name: &'static str, script: fn(&mut Session) -> Step) -> Scenario {
    Scenario { name, options: |options| options, before: |_| Ok(()), script }
}

impl Scenario {
    fn with(self, options: fn(LogOptions) -> LogOptions) -> Self {
        Self { options, ..self }
    }

    fn after(self, before: fn(&mut Session) -> Step) -> Self {
        Self { before, ..self }
    }
}

/// Five entities with a few units each, of every sort.
fn units_of_every_sort(s: &mut Session) -> Step {
    s.open()?;
    for round in 0..3 {
        (0..5).for_each(|entity| s.append_form(entity, Form::sort(entity * (1 + round / 2), &[30 + round, 10])));
        s.settle();
    }
    Ok(())
}

/// The same, closed in order.
fn some_units(s: &mut Session) -> Step {
    units_of_every_sort(s)?;
    s.close();
    Ok(())
}

/// The same, ended by a kill.
fn some_units_killed(s: &mut Session) -> Step {
    units_of_every_sort(s)?;
    s.kill();
    Ok(())
}

/// Power fails while the last batch is being written.
fn cut_off_in_a_batch(s: &mut Session, crash: Crash) -> Step {
    s.open()?;
    (0..3).for_each(|entity| s.write(entity, &[100]));
    s.expect_failures();
    s.door.crash_before(Selector::call(Call::Datasync).by("ego-committer"), 1);
    (0..8).for_each(|entity| s.append_form(entity, Form::sort(entity, &[700, 300])));
    s.settle();
    s.abandon();
    s.door = s.door.after_crash(crash, 3);
    Ok(())
}

/// The sync of the last batch fails, and the process dies.
fn undecided(s: &mut Session) -> Step {
    s.open()?;
    s.write(0, &[100]);
    s.write(1, &[100]);
    s.break_call(Selector::call(Call::Datasync).by("ego-committer"), Fault::Eio, Times::Once);
    // Over several pages: what is written later in the same page would carry a lost page to the disk.
    s.append(0, &[5_000, 60]);
    s.append_form(2, Form { has_command: true, metadata: 2_000, ..Form::state(7_000) });
    s.append(0, &[60]);
    s.append_form(0, Form::command(Some(20)));
    s.settle();
    s.kill();
    s.mended();
    Ok(())
}

/// The sync of the closing mark fails, where the mark ends a page so that no later write carries it to the disk.
fn undecided_mark(s: &mut Session) -> Step {
    s.open()?;
    s.write(0, &[3_837]);
    s.door.start_trace();
    s.break_call(Selector::call(Call::Datasync).by("ego-committer"), Fault::Eio, Times::Once);
    s.close();
    let marks: Vec<_> = s.door.trace().into_iter().filter(|traced| traced.site.call == Call::Write).collect();
    s.require(matches!(marks.last().and_then(|mark| mark.range), Some((at, len)) if (at + len) % 4096 == 0));
    s.kill();
    s.mended();
    Ok(())
}

fn read_append_close(s: &mut Session) -> Step {
    s.open()?;
    s.write(0, &[20]);
    s.write(7, &[20, 20]);
    s.look();
    s.close();
    Ok(())
}

fn fill_segments(s: &mut Session, units: usize) {
    for unit in 0..units {
        s.write_form(unit % 3, Form::sort(unit, &[7_000]));
    }
}

/// Every story.
fn all() -> Vec<Scenario> {
    let mut all = basics();
    all.extend(restarts());
    all.extend(segments());
    all.extend(refusals());
    all.extend(failures());
    all.extend(notes::all());
    all
}

fn basics() -> Vec<Scenario> {
    vec![
        story("open-new", |s| {
            s.open()?;
            s.close();
            Ok(())
        }),
        story("open-new-killed", |s| {
            s.open()?;
            s.kill();
            s.open()?;
            s.close();
            Ok(())
        }),
        story("one-unit", |s| {
            s.open()?;
            s.write(0, &[40]);
            s.expect_last(Fate::Stored);
            s.close();
            Ok(())
        }),
        story("units-of-three", |s| {
            s.open()?;
            (0..4).for_each(|_| s.write(0, &[40, 0, 100]));
            s.look();
            s.close();
            Ok(())
        }),
        story("many-entities", |s| {
            s.open()?;
            for round in 0..2 {
                (0..40).for_each(|entity| s.append_form(entity, Form::sort(entity + round, &[60])));
                s.settle();
            }
            s.look();
            s.close();
            Ok(())
        }),
        story("pipelined", |s| {
            s.open()?;
            for unit in 0..24 {
                s.append_form(unit % 2, Form::sort(unit, &[25]));
                if unit % 5 == 4 {
                    s.kick();
                }
            }
            s.settle();
            s.close();
            Ok(())
        }),
        story("threads", |s| {
            s.open()?;
            s.append_from_threads(4, 6);
            s.settle();
            s.look();
            s.close();
            Ok(())
        }),
        story("long-names-and-empty-events", |s| {
            s.open()?;
            s.write(LONG_NAMES, &[0]);
            s.write(LONG_NAMES + 1, &[0, 0, 0]);
            s.write_form(
                LONG_NAMES,
                Form { metadata: 16 << 10, rejection: Some(900), has_command: true, ..Form::state(1) },
            );
            s.look();
            s.close();
            Ok(())
        }),
        story("commands-alone", |s| {
            s.open()?;
            (0..3).for_each(|unit| s.write_form(0, Form::command((unit > 0).then_some(unit))));
            s.append_form(1, Form { metadata: 7, ..Form::command(None) });
            s.append(1, &[10]);
            s.append_form(1, Form::command(Some(10)));
            s.settle();
            s.look();
            s.write_form(2, Form::command(None));
            s.kill();
            s.open()?;
            s.append_form(0, Form::state(10));
            s.append_form(1, Form::state(10));
            s.settle();
            s.look();
            s.close();
            Ok(())
        }),
        story("close-without-waiting", |s| {
            s.open()?;
            (0..5).for_each(|entity| s.append_form(entity, Form::sort(entity, &[33])));
            s.close();
            Ok(())
        }),
        story("mark-after-idle", |s| {
            s.open()?;
            s.write(0, &[40]);
            s.await_mark();
            s.write(0, &[40]);
            s.kill();
            s.open()?;
            s.close();
            Ok(())
        })
        .with(|options| LogOptions { idle_mark_millis: 1, ..options }),
        story("clock-runs-backwards", |s| {
            s.open()?;
            s.write(0, &[40]);
            s.door.set_wall_nanos(5);
            s.write(0, &[40]);
            s.close();
            s.open()?;
            s.write(0, &[40]);
            s.look();
            s.close();
            Ok(())
        }),
    ]
}

fn restarts() -> Vec<Scenario> {
    vec![
        story("reopen", read_append_close).after(some_units),
        story("reopen-killed", read_append_close).after(some_units_killed),
        story("reopen-many-times", |s| {
            for round in 0..4 {
                s.open()?;
                if round == 2 {
                    s.write(1, &[15]);
                }
                s.kill();
            }
            s.open()?;
            s.close();
            Ok(())
        })
        .after(some_units_killed),
        story("killed-before-the-kick", |s| {
            s.open()?;
            s.write(0, &[40]);
            s.append(0, &[40]);
            s.append(1, &[40]);
            s.kill();
            read_append_close(s)
        }),
        story("torn-tail", read_append_close)
            .after(|s| cut_off_in_a_batch(s, Crash { bytes: Bytes::Torn(512), names: Names::Kept })),
        story("cut-tail", read_append_close)
            .after(|s| cut_off_in_a_batch(s, Crash { bytes: Bytes::Cut(4096), names: Names::Kept })),
        story("whole-unproven-tail", read_append_close).after(|s| cut_off_in_a_batch(s, Crash::MILD)),
        story("undecided-tail", read_append_close).after(undecided),
        story("undecided-closing-mark", read_append_close).after(undecided_mark),
        story("undecided-tail-twice", |s| {
            s.open()?;
            s.kill();
            s.open()?;
            s.write(0, &[10]);
            s.kill();
            read_append_close(s)
        })
        .after(undecided),
        story("undecided-tail-then-power-fails", |s| {
            s.open()?;
            s.look();
            s.write(2, &[10]);
            s.door.crash();
            s.abandon();
            Ok(())
        })
        .after(undecided),
        story("checkpoint", |s| {
            s.open()?;
            (0..12).for_each(|unit| s.write_form(unit % 5, Form::sort(unit, &[600])));
            s.close();
            read_append_close(s)
        })
        .with(|options| LogOptions { checkpoint_bytes: 2_000, ..options }),
        story("checkpoint-at-every-batch", |s| {
            s.open()?;
            (0..30).for_each(|unit| s.write_form(unit % 3, Form::sort(unit, &[20])));
            s.kill();
            read_append_close(s)
        })
        .with(|options| LogOptions { checkpoint_bytes: 1, ..options }),
        story("checkpoint-behind-the-log", read_append_close)
            .with(|options| LogOptions { checkpoint_bytes: 2_000, ..options })
            .after(|s| {
                s.open()?;
                (0..12).for_each(|unit| s.write_form(unit % 5, Form::sort(unit, &[600])));
                s.kill();
                Ok(())
            }),
        story("derived-files-removed", |s| {
            s.remove_derived();
            read_append_close(s)
        })
        .with(|options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, checkpoint_bytes: 4_000, ..options })
        .after(|s| {
            s.open()?;
            fill_segments(s, 20);
            s.close();
            Ok(())
        }),
    ]
}

fn segments() -> Vec<Scenario> {
    let tiny: fn(LogOptions) -> LogOptions =
        |options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, ..options };
    vec![
        story("roll", |s| {
            s.open()?;
            fill_segments(s, 18);
            s.look();
            s.close();
            Ok(())
        })
        .with(tiny),
        story("roll-killed", |s| {
            s.open()?;
            fill_segments(s, 9);
            s.kill();
            s.open()?;
            fill_segments(s, 9);
            s.kill();
            read_append_close(s)
        })
        .with(tiny),
        story("roll-in-one-batch", |s| {
            s.open()?;
            for _ in 0..2 {
                (0..16).for_each(|unit| s.append_form(unit % 4, Form::sort(unit, &[5_000, 900])));
                s.settle();
            }
            s.close();
            s.open()?;
            s.look();
            s.close();
            Ok(())
        })
        .with(tiny),
        story("edge-of-a-segment", |s| {
            s.open()?;
            for unit in 0..14 {
                s.write(0, &[18_000 - 8 * unit]);
                s.write(1, &[8 * unit]);
            }
            s.kill();
            read_append_close(s)
        })
        .with(tiny),
        story("entity-across-segments", |s| {
            s.open()?;
            for unit in 0..10 {
                s.write_form(0, Form::sort(unit, &[100]));
                s.write(unit % 3 + 1, &[15_000]);
                s.look();
            }
            s.close();
            s.open()?;
            s.write(0, &[100]);
            s.look();
            s.close();
            Ok(())
        })
        .with(tiny),
        story("big-units", |s| {
            s.open()?;
            s.write(0, &[20_000, 20_000]);
            s.append(1, &[60_000]);
            s.append(0, &[5]);
            s.settle();
            s.look();
            s.close();
            Ok(())
        }),
    ]
}

fn refusals() -> Vec<Scenario> {
    vec![
        story("unit-too-large", |s| {
            s.open()?;
            s.write(0, &[10]);
            s.write(0, &[81_000]);
            s.expect_last(Fate::Gone);
            s.write(0, &[10]);
            s.expect_last(Fate::Stored);
            s.close();
            Ok(())
        }),
        story("conflict", |s| {
            s.open()?;
            s.expect_refusals();
            s.write(0, &[10, 10]);
            s.append(1, &[10]);
            s.append_at(0, 2, Form::events(&[10]));
            s.append_form(2, Form::command(None));
            s.append_at(2, 2, Form::command(Some(10)));
            s.append_at(3, 7, Form::state(10));
            s.settle();
            s.expect_last(Fate::Gone);
            s.write(0, &[10]);
            s.expect_last(Fate::Stored);
            s.write(3, &[10]);
            s.expect_last(Fate::Stored);
            s.look();
            s.close();
            Ok(())
        }),
        story("second-opening", |s| {
            s.open()?;
            s.write(0, &[10]);
            s.open_twice();
            s.write(0, &[10]);
            s.close();
            Ok(())
        }),
        story("full-disk-then-space", |s| {
            s.open()?;
            s.expect_refusals();
            let free = s.blocks_free_after(6);
            s.door.set_capacity(Some(free));
            for unit in 0..24 {
                s.append_form(unit % 3, Form::sort(unit, &[5_000]));
                if unit % 4 == 3 {
                    s.settle();
                }
            }
            s.settle();
            s.look();
            s.door.set_capacity(None);
            s.write(0, &[5_000]);
            s.expect_last(Fate::Stored);
            s.write(1, &[5_000]);
            s.expect_last(Fate::Stored);
            s.close();
            Ok(())
        })
        .with(|options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, ..options }),
        story("full-disk-closed-and-opened", |s| {
            s.open()?;
            s.expect_refusals();
            let free = s.blocks_free_after(2);
            s.door.set_capacity(Some(free));
            (0..12).for_each(|unit| s.write_form(unit % 2, Form::sort(unit, &[5_000])));
            s.close();
            s.door.set_capacity(None);
            read_append_close(s)
        })
        .with(|options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, ..options }),
        story("no-room-for-a-new-store", |s| {
            s.expect_failures();
            for blocks in [0, 1, 4, 9] {
                s.door.set_capacity(Some(blocks));
                let _step = s.open();
                s.kill();
            }
            s.mended();
            read_append_close(s)
        })
        .with(|options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, ..options }),
    ]
}

fn failures() -> Vec<Scenario> {
    vec![
        story("failed-write-then-reopen", |s| {
            s.open()?;
            s.write(0, &[10]);
            s.break_call(Selector::call(Call::Write).by("ego-committer"), Fault::Short, Times::ForEver);
            (0..4).for_each(|entity| s.append_form(entity, Form::sort(entity, &[900])));
            s.settle();
            s.append(0, &[10]);
            s.look();
            s.close();
            s.mended();
            read_append_close(s)
        }),
        story("failed-sync-then-reopen", |s| {
            s.open()?;
            s.write(0, &[10]);
            s.break_call(Selector::call(Call::Datasync).by("ego-committer"), Fault::Eio, Times::Once);
            (0..4).for_each(|entity| s.append_form(entity, Form::sort(entity, &[900])));
            s.settle();
            s.append(0, &[10]);
            s.look();
            s.close();
            s.mended();
            read_append_close(s)
        }),
        story("failed-sync-reverts-the-cache", |s| {
            s.door.set_after_failed_sync(AfterFailedSync::Reverted);
            s.open()?;
            s.write(0, &[10]);
            s.break_call(Selector::call(Call::Datasync).by("ego-committer"), Fault::Eio, Times::Once);
            (0..3).for_each(|entity| s.append(entity, &[900]));
            s.settle();
            s.look();
            s.close();
            s.mended();
            read_append_close(s)
        }),
        story("failed-fill", |s| {
            s.open()?;
            s.break_call(Selector::call(Call::Datasync).by("ego-housekeeper"), Fault::Eio, Times::ForEver);
            fill_segments(s, 20);
            s.close();
            s.mended();
            read_append_close(s)
        })
        .with(|options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, ..options }),
        story("rotten-checkpoint", |s| {
            let _outcome = s.door.flip(&Path::new(STORE).join("checkpoint"), 40, 0x10);
            read_append_close(s)
        })
        .with(|options| LogOptions { checkpoint_bytes: 500, ..options })
        .after(some_units),
    ]
}
