//! Stories of who leaves memory, beside lists that do the same slowly, and against plain LRU.

#![cfg(test)]

use ego_core::entities::residency::{Place, Residency, TRIES};
use ego_core::entities::sketch::Sketch;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Cases of each property; `EGO_CASES` asks for another number.
fn config() -> ProptestConfig {
    let cases = std::env::var("EGO_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Hashes that spread like those of ids.
fn hash(number: u64) -> u64 {
    ego_core::entities::shard::entity_hash(&number.to_string())
}

fn full(limit: usize) -> Residency {
    let mut residency = Residency::new(limit);
    for number in 0..limit as u64 {
        assert_eq!(residency.insert(hash(number)), number as Place);
    }
    residency
}

#[test]
fn nobody_has_to_leave_while_there_is_room() {
    let mut residency = full(100);
    assert_eq!((residency.len(), residency.victim(|_| true)), (100, None));
    residency.insert(hash(100));
    assert!(residency.victim(|_| true).is_some());
}

#[test]
fn who_is_used_often_stays_while_a_crowd_passes_through() {
    let mut residency = full(100);
    let regulars: Vec<Place> = (0..50).collect();
    regulars.iter().for_each(|&place| residency.touch(place));
    for number in 0..10_000 {
        residency.touch(regulars[number as usize % regulars.len()]);
        residency.insert(hash(1000 + number));
        let victim = residency.victim(|_| true).unwrap();
        assert!(!regulars.contains(&victim), "{victim} left when {number} had come");
        residency.remove(victim);
    }
    assert_eq!(residency.len(), 100);
}

#[test]
fn a_newcomer_that_is_used_more_takes_the_place_of_one_that_is_not() {
    let mut residency = full(100);
    let newcomer = residency.insert(hash(1000));
    (0..10).for_each(|_| residency.touch(newcomer));
    for number in 0..50 {
        residency.insert(hash(2000 + number));
        let victim = residency.victim(|_| true).unwrap();
        assert_ne!(victim, newcomer);
        residency.remove(victim);
    }
}

#[test]
fn while_all_are_busy_the_limit_is_exceeded_and_kept_again_afterwards() {
    let mut residency = Residency::new(10);
    for number in 0..1000 {
        residency.insert(hash(number));
        assert_eq!(residency.victim(|_| false), None);
    }
    assert_eq!(residency.len(), 1000);
    while let Some(victim) = residency.victim(|_| true) {
        residency.remove(victim);
    }
    assert_eq!(residency.len(), 10);
}

#[test]
fn the_one_idle_entity_is_found_among_many_busy_ones_after_some_calls() {
    let mut residency = full(1000);
    residency.insert(hash(1000));
    let found = (0..2 * 1000 / TRIES).find_map(|_| residency.victim(|place| place == 900));
    assert_eq!(found, Some(900));
}

#[test]
fn one_call_asks_about_a_bounded_number() {
    let mut residency = full(10_000);
    (0..10_000).for_each(|place| residency.touch(place));
    for number in 10_000..11_000 {
        residency.insert(hash(number));
    }
    let asked = std::cell::Cell::new(0);
    let ask = |_| {
        asked.set(asked.get() + 1);
        false
    };
    assert_eq!(residency.victim(ask), None);
    assert!((1..=4 * TRIES).contains(&asked.get()), "{}", asked.get());
}

#[test]
fn a_place_is_used_again_and_nobodys_place_is_left_alone() {
    let mut residency = full(3);
    residency.remove(1);
    residency.remove(1);
    residency.touch(1);
    residency.touch(Place::MAX);
    residency.remove(77);
    assert_eq!((residency.len(), residency.insert(hash(9)), residency.insert(hash(10))), (2, 1, 3));
}

#[test]
fn a_limit_of_nothing_or_of_one_works_as_any_other() {
    for limit in [0, 1, 2] {
        let mut residency = Residency::new(limit);
        for number in 0..100 {
            let place = residency.insert(hash(number));
            residency.touch(place);
            while let Some(victim) = residency.victim(|_| true) {
                residency.remove(victim);
            }
            assert_eq!(residency.len(), limit.min(number as usize + 1));
        }
    }
}

/// A small generator, the same everywhere: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipf(0.9) over `keys` keys; one access in a hundred belongs to a scan over keys that are used once.
fn trace(random: &mut Random, keys: usize, length: usize) -> Vec<u64> {
    let mut sums: Vec<f64> = (1..=keys).map(|rank| (rank as f64).powf(-0.9)).collect();
    let mut total = 0.0;
    for sum in &mut sums {
        total += *sum;
        *sum = total;
    }
    let mut trace = Vec::new();
    let mut scanned = keys as u64;
    while trace.len() < length {
        for _ in 0..49_500 {
            let at = random.unit() * total;
            trace.push(sums.partition_point(|&sum| sum < at) as u64);
        }
        trace.extend(scanned..scanned + 500);
        scanned += 500;
    }
    trace
}

fn hits_of_lru(trace: &[u64], limit: usize) -> usize {
    let (mut stamps, mut order, mut hits) = (HashMap::new(), BTreeMap::new(), 0);
    for (stamp, &key) in trace.iter().enumerate() {
        if let Some(before) = stamps.insert(key, stamp) {
            order.remove(&before);
            hits += 1;
        }
        order.insert(stamp, key);
        if order.len() > limit {
            stamps.remove(&order.pop_first().unwrap().1);
        }
    }
    hits
}

fn hits_of_residency(trace: &[u64], limit: usize) -> usize {
    let mut residency = Residency::new(limit);
    let (mut places, mut keys, mut hits) = (HashMap::new(), HashMap::new(), 0);
    for &key in trace {
        if let Some(&place) = places.get(&key) {
            residency.touch(place);
            hits += 1;
            continue;
        }
        let place = residency.insert(hash(key));
        places.insert(key, place);
        assert_eq!(keys.insert(place, key), None, "two in one place");
        while let Some(victim) = residency.victim(|_| true) {
            residency.remove(victim);
            places.remove(&keys.remove(&victim).unwrap());
        }
        assert_eq!(residency.len(), places.len());
    }
    hits
}

/// `EGO_SIM_SEED` makes another trace.
#[test]
fn more_of_a_skewed_load_with_scans_is_found_in_memory_than_with_plain_recency() {
    let seed = std::env::var("EGO_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let trace = trace(&mut Random(seed | 1), 100_000, 1_000_000);
    for (limit, better) in [(100, 1.4), (1000, 1.25), (10_000, 1.08)] {
        let (lru, ours) = (hits_of_lru(&trace, limit), hits_of_residency(&trace, limit));
        assert!(ours as f64 > lru as f64 * better, "seed {seed}, limit {limit}: {ours} against {lru}");
    }
}

/// The same rules over plain lists, the oldest first.
struct Model {
    limit: usize,
    window: Vec<Place>,
    probation: Vec<Place>,
    protected: Vec<Place>,
    hashes: HashMap<Place, u32>,
    sketch: Sketch,
}

fn pass_over(list: &mut [Place], busy: &BTreeSet<Place>) -> Option<Place> {
    for _ in 0..TRIES.min(list.len()) {
        if !busy.contains(&list[0]) {
            return Some(list[0]);
        }
        list.rotate_left(1);
    }
    None
}

impl Model {
    fn new(limit: usize) -> Self {
        let (window, probation, protected) = Default::default();
        Self { limit, window, probation, protected, hashes: HashMap::new(), sketch: Sketch::new(limit) }
    }

    fn window_limit(&self) -> usize {
        (self.limit / 100).max(1)
    }

    fn main_limit(&self) -> usize {
        self.limit.saturating_sub(self.window_limit())
    }

    fn insert(&mut self, place: Place, hash: u64) {
        let hash = (hash ^ hash >> 32) as u32;
        self.sketch.see(hash);
        assert_eq!(self.hashes.insert(place, hash), None, "{place} is taken");
        self.window.push(place);
        self.settle();
    }

    fn settle(&mut self) {
        while self.window.len() > self.window_limit() && self.probation.len() + self.protected.len() < self.main_limit()
        {
            self.probation.push(self.window.remove(0));
        }
    }

    fn touch(&mut self, place: Place) {
        let Some(&hash) = self.hashes.get(&place) else { return };
        self.sketch.see(hash);
        if let Some(index) = self.window.iter().position(|&held| held == place) {
            self.window.remove(index);
            self.window.push(place);
            return;
        }
        self.probation.retain(|&held| held != place);
        self.protected.retain(|&held| held != place);
        self.protected.push(place);
        if self.protected.len() > self.main_limit() - self.main_limit() / 5 {
            self.probation.push(self.protected.remove(0));
        }
    }

    fn remove(&mut self, place: Place) {
        self.hashes.remove(&place);
        for list in [&mut self.window, &mut self.probation, &mut self.protected] {
            list.retain(|&held| held != place);
        }
    }

    fn victim(&mut self, busy: &BTreeSet<Place>) -> Option<Place> {
        if self.hashes.len() <= self.limit {
            return None;
        }
        self.settle();
        let crowded = self.window.len() > self.window_limit();
        let newcomer = if crowded { pass_over(&mut self.window, busy) } else { None };
        let settled = pass_over(&mut self.probation, busy).or_else(|| pass_over(&mut self.protected, busy));
        let estimate = |place| self.sketch.estimate(self.hashes[&place]);
        match (newcomer, settled) {
            (Some(newcomer), Some(settled)) if estimate(newcomer) > estimate(settled) => {
                self.window.remove(0);
                self.probation.push(newcomer);
                Some(settled)
            }
            (None, None) => pass_over(&mut self.window, busy),
            (newcomer, settled) => newcomer.or(settled),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64),
    Touch(Place),
    Remove(Place),
    /// Victims leave until there is none.
    Shrink,
    Busy(Place),
    Idle(Place),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || 0..80 as Place;
    prop_oneof![
        8 => (0..200u64).prop_map(Step::Insert),
        8 => place().prop_map(Step::Touch),
        1 => place().prop_map(Step::Remove),
        4 => Just(Step::Shrink),
        2 => place().prop_map(Step::Busy),
        2 => place().prop_map(Step::Idle),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_does_what_plain_lists_do(limit in 0..50usize, steps in vec(step(), 1..300)) {
        let (mut residency, mut model) = (Residency::new(limit), Model::new(limit));
        let (mut busy, mut most) = (BTreeSet::new(), 0);
        for step in steps {
            match step {
                Step::Insert(number) => {
                    let place = residency.insert(hash(number));
                    model.insert(place, hash(number));
                    most = most.max(residency.len());
                    prop_assert!((place as usize) < most, "a place that was free is not used");
                }
                Step::Touch(place) => {
                    residency.touch(place);
                    model.touch(place);
                }
                Step::Remove(place) => {
                    residency.remove(place);
                    model.remove(place);
                }
                Step::Shrink => loop {
                    let victim = residency.victim(|place| !busy.contains(&place));
                    prop_assert_eq!(victim, model.victim(&busy));
                    let Some(victim) = victim else { break };
                    prop_assert!(!busy.contains(&victim));
                    residency.remove(victim);
                    model.remove(victim);
                },
                Step::Busy(place) => {
                    busy.insert(place);
                }
                Step::Idle(place) => {
                    busy.remove(&place);
                }
            }
            prop_assert_eq!(residency.len(), model.hashes.len());
        }
        // Everybody leaves in the same order, and nobody is left over or named twice.
        let mut left = BTreeSet::new();
        busy.clear();
        while residency.len() > limit {
            let victim = residency.victim(|_| true).unwrap();
            prop_assert_eq!(Some(victim), model.victim(&busy));
            prop_assert!(left.insert(victim));
            residency.remove(victim);
            model.remove(victim);
        }
        prop_assert!(residency.len() <= limit);
    }
}
