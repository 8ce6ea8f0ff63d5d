//! Stories of the timer wheel, beside a sorted map that does the same slowly.

#![cfg(test)]

use ego_core::entities::wheel::{TICK, Wheel};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECOND: u64 = 1000 * TICK;
const YEAR: u64 = 365 * 24 * 3600 * SECOND;

/// Cases of each property; `EGO_CASES` asks for another number.
fn config() -> ProptestConfig {
    let cases = std::env::var("EGO_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn take_all(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
    std::iter::from_fn(|| wheel.take_due(now)).map(|(key, _)| key).collect()
}

#[test]
fn an_entry_is_due_at_its_time_and_not_a_nanosecond_before() {
    let mut wheel = Wheel::new(5 * SECOND);
    wheel.schedule(7, 8 * SECOND);
    assert_eq!((wheel.take_due(8 * SECOND - 1), wheel.len()), (None, 1));
    assert_eq!((wheel.take_due(8 * SECOND), wheel.take_due(8 * SECOND)), (Some((7, 8 * SECOND)), None));
    assert_eq!((wheel.next_due(), wheel.is_empty()), (None, true));
}

#[test]
fn a_time_within_a_tick_is_due_when_the_tick_is_over() {
    let mut wheel = Wheel::new(0);
    wheel.schedule(1, TICK + 1);
    assert_eq!((wheel.take_due(2 * TICK - 1), wheel.take_due(2 * TICK)), (None, Some((1, TICK + 1))));
}

#[test]
fn what_is_scheduled_for_the_past_is_due_at_the_next_look() {
    let mut wheel = Wheel::new(100 * SECOND);
    wheel.schedule(1, 3);
    assert!(wheel.next_due().is_some_and(|at| at <= 100 * SECOND));
    assert_eq!(wheel.take_due(100 * SECOND), Some((1, 3)));
}

#[test]
fn an_entity_that_is_used_again_and_again_has_one_entry_and_leaves_once_it_is_idle() {
    let (idle, mut last_used) = (60 * SECOND, 0);
    let mut wheel = Wheel::new(0);
    wheel.schedule(1, idle);
    let mut left = None;
    for now in (0..1000 * SECOND).step_by(SECOND as usize) {
        if now < 300 * SECOND {
            last_used = now;
        }
        while let Some((key, _)) = wheel.take_due(now) {
            if last_used + idle > now {
                wheel.schedule(key, last_used + idle);
            } else {
                left = Some(now);
            }
        }
        assert_eq!(wheel.len(), usize::from(left.is_none()));
    }
    assert_eq!(left, Some(last_used + idle));
}

#[test]
fn a_clock_that_jumps_by_a_century_takes_everything_in_the_order_of_time() {
    let mut wheel = Wheel::new(0);
    let times: Vec<u64> = (0..1000).map(|n: u64| TICK + 10 * YEAR / 1000 * (n * 617 % 1000)).collect();
    for (key, &at) in (0..).zip(&times) {
        wheel.schedule(key, at);
    }
    let mut expected: Vec<u32> = (0..1000).collect();
    expected.sort_by_key(|&key| times[key as usize]);
    assert_eq!(take_all(&mut wheel, 100 * YEAR), expected);
}

#[test]
fn who_looks_only_when_told_to_finds_each_entry_within_a_tick_and_looks_seldom_in_vain() {
    let mut wheel = Wheel::new(3 * YEAR);
    let periods = [1, 2, 63, 64, 65, 1000, 60_000, 86_400_000, 10 * YEAR / TICK];
    for (key, period) in (0..).zip(periods) {
        wheel.schedule(key, 3 * YEAR + period * TICK - 1);
    }
    let mut looks = 0;
    while let Some(now) = wheel.next_due() {
        looks += 1;
        while let Some((_, at)) = wheel.take_due(now) {
            assert!((at..=at + TICK).contains(&now), "due at {at}, taken at {now}");
        }
    }
    assert!(looks <= 8 * periods.len(), "{looks} looks");
}

#[test]
fn a_clock_that_goes_back_finds_nothing_due_early() {
    let mut wheel = Wheel::new(0);
    assert_eq!(wheel.take_due(10 * SECOND), None);
    wheel.schedule(1, 5 * SECOND);
    assert_eq!((wheel.take_due(4 * SECOND), wheel.take_due(10 * SECOND)), (None, Some((1, 5 * SECOND))));
}

#[test]
fn the_end_of_time_is_as_good_a_time_as_any() {
    let mut wheel = Wheel::new(0);
    wheel.schedule(1, u64::MAX);
    wheel.schedule(2, u64::MAX / TICK * TICK);
    assert_eq!(take_all(&mut wheel, u64::MAX), [2]);
    assert_eq!((wheel.next_due(), wheel.len()), (None, 1));
}

#[derive(Debug, Clone)]
enum Step {
    /// A key for so long after now, or for as long before.
    Schedule { after: u64, past: bool },
    /// Time passes, and everything due is taken; each nth is scheduled again for so long after.
    Pass { time: u64, nth: usize, again: u64 },
    /// An entry is cancelled, whichever stands there in their order.
    Cancel { nth: usize },
    /// As far as the wheel says that there is something to do.
    Follow,
}

/// From a nanosecond to ten years, each magnitude as often as another.
fn span() -> impl Strategy<Value = u64> {
    (0..59u32, any::<u64>()).prop_map(|(bits, random)| (random >> (63 - bits)).min(10 * YEAR))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (span(), prop::bool::weighted(0.05)).prop_map(|(after, past)| Step::Schedule { after, past }),
        3 => (span(), 1..4usize, span()).prop_map(|(time, nth, again)| Step::Pass { time, nth, again: again + 1 }),
        2 => any::<usize>().prop_map(|nth| Step::Cancel { nth }),
        1 => Just(Step::Follow),
    ]
}

/// What the wheel should do: the first tick at which an entry is due, with the entry.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(u64, u32), u64>,
    /// No tick before is looked at any more.
    tick: u64,
}

impl Model {
    fn schedule(&mut self, key: u32, at: u64) {
        self.entries.insert((at.div_ceil(TICK).max(self.tick), key), at);
    }

    fn first_tick(&self) -> Option<u64> {
        self.entries.keys().next().map(|&(tick, _)| tick)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_wheel_does_what_a_sorted_map_does(start in span(), steps in vec(step(), 1..60)) {
        let mut now = start;
        let mut wheel = Wheel::new(now);
        let mut model = Model { tick: now / TICK, ..Model::default() };
        let mut keys = 0..;
        let mut alarms = BTreeMap::new();
        for step in steps {
            let (nth, again) = match step {
                Step::Schedule { after, past } => {
                    let at = if past { now.saturating_sub(after) } else { now + after };
                    let key = keys.next().unwrap();
                    alarms.insert(key, wheel.schedule(key, at));
                    model.schedule(key, at);
                    (0, 0)
                }
                Step::Cancel { nth } => {
                    if let Some(&(tick, key)) = model.entries.keys().nth(nth % (model.entries.len() + 1)) {
                        prop_assert_eq!(wheel.cancel(alarms[&key]), Some(key));
                        prop_assert_eq!(wheel.cancel(alarms[&key]), None);
                        model.entries.remove(&(tick, key));
                    }
                    (0, 0)
                }
                Step::Pass { time, nth, again } => {
                    now += time;
                    (nth, again)
                }
                Step::Follow => {
                    now = now.max(wheel.next_due().unwrap_or(0));
                    (0, 0)
                }
            };
            let mut taken = 0;
            while let Some((key, at)) = wheel.take_due(now) {
                let tick = model.first_tick().unwrap();
                prop_assert!(tick <= now / TICK, "{} is early", key);
                prop_assert_eq!(model.entries.remove(&(tick, key)), Some(at), "{} is not among the first", key);
                model.tick = tick;
                taken += 1;
                if nth > 0 && taken % nth == 0 {
                    alarms.insert(key, wheel.schedule(key, now + again));
                    model.schedule(key, now + again);
                }
            }
            model.tick = now / TICK;
            prop_assert!(model.first_tick().is_none_or(|tick| tick > now / TICK), "something due was left");
            prop_assert_eq!(wheel.len(), model.entries.len());
            match (wheel.next_due(), model.first_tick()) {
                (None, None) => {}
                (Some(next), Some(first)) => prop_assert!(next > now / TICK * TICK && next <= first * TICK),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
