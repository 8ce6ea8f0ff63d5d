//! The machine crashes before every call of every story, and leaves its unsynced changes in every way that a disk may.
//!
//! `EGO_SWEEP=full` takes every way, else some are chosen by `EGO_SIM_SEED`. A case is one distinct state of the disk
//! together with what was acknowledged before it. A failure prints the line that does it again.
#![cfg(test)]

mod support;

use ego_core::io::sim::{Bytes, Crash, Names, Selector, Site};
use support::aftermath;
use support::history::Fate;
use support::pool::{Report, Sweep, Work, distinct};
use support::scenarios::{self, Prepared};
use support::settings::Settings;

/// Of many unsynced changes, about so many are left out, kept alone or the first to be lost.
const ORDERED: usize = 12;
/// One in so many crashes is done in CI.
const CI_SHARE: u64 = 10;

#[test]
fn every_crash_leaves_what_was_acknowledged() {
    let settings = Settings::from_env();
    let sweep = Sweep::new();
    let mut work: Vec<(String, Work)> = Vec::new();
    for prepared in scenarios::prepare(&sweep, &settings) {
        for (site, nth) in prepared.calls() {
            let name = format!("{}/{site}/{nth}", prepared.scenario.name);
            if !settings.wants(&name) {
                continue;
            }
            let (settings, prepared, case) = (settings.clone(), prepared.clone(), name.clone());
            work.push((name, Box::new(move |report| one(report, &case, &settings, &prepared, (&site, nth)))));
        }
    }
    sweep.drive(work);
    sweep.finish("crash sweep", &settings);
}

fn one(report: &Report, case: &str, settings: &Settings, prepared: &Prepared, (site, nth): (&Site, u64)) {
    let mut session = prepared.start.fork(true);
    session.door.crash_before(Selector::site(site), nth);
    prepared.scenario.play(&mut session);
    report.note(case, session.verdict());
    session.door.crash();
    session.abandon();
    let units = session.history.attempts.iter().map(|attempt| attempt.fate);
    let fates: Vec<Fate> = units.chain(session.history.notes.tried.iter().map(|tried| tried.fate)).collect();
    let fates = format!("{fates:?}");
    for (crash, seed) in crashes(settings, case, session.door.unsynced()) {
        let name = format!("{case}/{crash:?}/{seed}");
        if !settings.wants(&name) {
            continue;
        }
        let left = session.door.after_crash(crash, seed);
        let print = left.fingerprint().to_le_bytes();
        if report.is_new(distinct(&[prepared.scenario.name.as_bytes(), fates.as_bytes(), &print])) {
            report.note(&name, aftermath::survives(left, session.options, session.history.clone()));
        }
    }
}

fn crashes(settings: &Settings, case: &str, (bytes, names): (usize, usize)) -> Vec<(Crash, u64)> {
    let seed = settings.chance(case);
    let mut all = vec![(Crash::HARSH, 0), (Crash::MILD, 0)];
    if bytes + names == 0 {
        return all;
    }
    let mut add = |bytes, names, seed| all.push((Crash { bytes, names }, seed));
    let tears = [Bytes::Torn(512), Bytes::Torn(4096), Bytes::Cut(512), Bytes::Cut(4096), Bytes::Some];
    let ordered = (0..bytes)
        .step_by(bytes.div_ceil(ORDERED).max(1))
        .flat_map(|one| [Bytes::Prefix(one), Bytes::Without(one), Bytes::Only(one)]);
    let whole = [Bytes::Dropped, Bytes::Kept, Bytes::SizeAhead, Bytes::Stale];
    let fates = [Names::Lost, Names::Kept, Names::Some].into_iter().chain((1..names.min(ORDERED)).map(Names::Prefix));
    for names in fates {
        for bytes in ordered.clone().chain(whole) {
            add(bytes, names, 0);
        }
        for bytes in tears {
            (0..6).for_each(|turn| add(bytes, names, turn));
        }
    }
    if settings.everything(case) {
        return all;
    }
    let mut turn = seed;
    all.retain(|(crash, _)| {
        turn = turn.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        matches!(*crash, Crash::HARSH | Crash::MILD) || (turn >> 33).is_multiple_of(CI_SHARE)
    });
    all
}
