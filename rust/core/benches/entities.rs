//! What it costs to know who may leave memory: the timer wheel beside a sorted map, W-TinyLFU beside a hash map that is
//! only looked up.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ego_core::entities::residency::{Place, Residency};
use ego_core::entities::shard::entity_hash;
use ego_core::entities::wheel::{TICK, Wheel};
use std::collections::{BTreeSet, HashMap};

const SIZES: [usize; 2] = [10_000, 1_000_000];
const IDLE: u64 = 60_000 * TICK;
/// Touches and schedules per measured call.
const ROUND: usize = 10_000;

/// Numbers below `below` that follow no pattern, the same at every run.
fn scattered(below: usize) -> impl FnMut() -> usize {
    let mut state = 0u64;
    move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (((state >> 32) * below as u64) >> 32) as usize
    }
}

fn touch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("touch");
    group.throughput(criterion::Throughput::Elements(ROUND as u64));
    for size in SIZES {
        let mut residency = Residency::new(size);
        let places: Vec<Place> = (0..size).map(|n| residency.insert(entity_hash(&n.to_string()))).collect();
        let mut next = scattered(size);
        group.bench_function(format!("resident of {size}"), |bench| {
            bench.iter(|| (0..ROUND).for_each(|_| residency.touch(next() as Place)));
        });
        let table: HashMap<Place, u64> = places.iter().map(|&place| (place, 0)).collect();
        group.bench_function(format!("hash map lookup of {size}"), |bench| {
            bench.iter(|| (0..ROUND).filter(|_| table.contains_key(&(next() as Place))).count());
        });
        group.bench_function(format!("newcomer and victim of {size}"), |bench| {
            let mut number = size;
            bench.iter(|| {
                for _ in 0..ROUND {
                    number += 1;
                    residency.insert((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    if let Some(victim) = residency.victim(|_| true) {
                        residency.remove(victim);
                    }
                }
            });
        });
    }
}

fn fire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fire and schedule again");
    group.throughput(criterion::Throughput::Elements(ROUND as u64));
    for size in SIZES {
        let spread = |n: usize| IDLE / size as u64 * n as u64;
        let mut wheel = Wheel::new(0);
        for n in 0..size {
            wheel.schedule(n as u32, spread(n));
        }
        group.bench_function(format!("wheel of {size}"), |bench| {
            bench.iter(|| {
                let mut fired = 0;
                while let Some(now) = wheel.next_due().filter(|_| fired < ROUND) {
                    while let Some((key, at)) = wheel.take_due(now) {
                        wheel.schedule(key, at + IDLE);
                        fired += 1;
                    }
                }
            });
        });
        let mut sorted: BTreeSet<(u64, u32)> = (0..size).map(|n| (spread(n), n as u32)).collect();
        group.bench_function(format!("sorted map of {size}"), |bench| {
            bench.iter(|| {
                for _ in 0..ROUND {
                    if let Some((at, key)) = sorted.pop_first() {
                        sorted.insert((at + IDLE, key));
                    }
                }
            });
        });
    }
}

fn jump(criterion: &mut Criterion) {
    criterion.bench_function("a million entries due at one jump of a day", |bench| {
        bench.iter_batched(
            || {
                let (mut wheel, mut next) = (Wheel::new(0), scattered(60_000_000));
                for key in 0..1_000_000 {
                    wheel.schedule(key, IDLE + next() as u64 * 1000);
                }
                wheel
            },
            |mut wheel| std::iter::from_fn(|| wheel.take_due(86_400_000 * TICK)).count(),
            BatchSize::LargeInput,
        );
    });
    criterion.bench_function("the longest single look at a million entries of one minute", |bench| {
        bench.iter_batched(
            || {
                let (mut wheel, mut next) = (Wheel::new(0), scattered(1_000_000));
                for key in 0..1_000_000 {
                    wheel.schedule(key, IDLE + next() as u64 * 1000);
                }
                wheel
            },
            |mut wheel| {
                wheel.take_due(IDLE - TICK);
                wheel
            },
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(entities, touch, fire, jump);
criterion_main!(entities);
