//! Every call of every story fails, with each error, once and for ever; then the store must hold what was acknowledged.
//!
//! `EGO_SWEEP=full` does all of them, else each call fails in one way chosen by `EGO_SIM_SEED`. A failure prints the
//! line that does it again: calls are numbered within their site (thread, class of file, call), so it meets the same
//! call in the same state as far as that thread's own steps go; where threads race for the disk, repeat it.
#![cfg(test)]

mod support;

use ego_core::io::sim::{Crash, Fault, Selector, Site, Times};
use support::aftermath;
use support::history::Trouble;
use support::pool::{Report, Sweep, Work, distinct};
use support::scenarios::{self, Prepared};
use support::session::Session;
use support::settings::Settings;

#[test]
fn every_call_fails_and_nothing_acknowledged_is_lost() {
    let settings = Settings::from_env();
    let sweep = Sweep::new();
    let mut work: Vec<(String, Work)> = Vec::new();
    for prepared in scenarios::prepare(&sweep, &settings) {
        for (site, nth) in prepared.calls() {
            let call = format!("{}/{site}/{nth}", prepared.scenario.name);
            for (fault, times) in chosen(&settings, &call) {
                let name = format!("{call}/{fault:?}/{times:?}");
                if !settings.wants(&name) {
                    continue;
                }
                let (site, prepared, case) = (site.clone(), prepared.clone(), name.clone());
                work.push((name, Box::new(move |report| one(report, &case, &prepared, (&site, nth, fault, times)))));
            }
        }
    }
    sweep.drive(work);
    sweep.finish("fault sweep", &settings);
}

fn chosen(settings: &Settings, call: &str) -> Vec<(Fault, Times)> {
    let all = Fault::ALL.iter().flat_map(|fault| [(*fault, Times::Once), (*fault, Times::ForEver)]);
    let all: Vec<_> = all.collect();
    if settings.everything(call) {
        return all;
    }
    let first = settings.chance(call) as usize;
    vec![all[first % all.len()]]
}

fn one(report: &Report, case: &str, prepared: &Prepared, how: (&Site, u64, Fault, Times)) {
    let (site, nth, fault, times) = how;
    let mut session = prepared.start.fork(true);
    session.door.fail(Selector::site(site), nth, fault, times);
    let before = session.door.struck();
    prepared.scenario.play(&mut session);
    if session.door.struck() == before || !report.is_new(distinct(&[case.as_bytes()])) {
        return;
    }
    report.note(case, after(&mut session));
}

fn after(session: &mut Session) -> Result<(), Trouble> {
    session.verdict()?;
    let (options, history) = (session.options, session.history.clone());
    let without_power = session.door.after_crash(Crash::HARSH, 0);
    session.kill();
    aftermath::survives(session.door.clone(), options, history.clone())?;
    aftermath::survives(without_power, options, history)
}
