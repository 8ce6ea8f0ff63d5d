//! Who waits for whose answer, so that a wait that would close a circle can be refused.
//!
//! Each wait counts: who waits twice for the same has to stop twice. Only those that wait cost memory. A search visits
//! everybody once, without recursion, and finds a shortest way.

use hashbrown::{HashMap, HashSet};
use std::hash::Hash;

/// The waits among entities named by `K`.
#[derive(Debug)]
pub struct Waits<K> {
    waits_for: HashMap<K, Vec<K>>,
}

impl<K> Default for Waits<K> {
    fn default() -> Self {
        Self { waits_for: HashMap::default() }
    }
}

impl<K: Copy + Eq + Hash> Waits<K> {
    /// `waiter` waits for `other`.
    pub fn waits(&mut self, waiter: K, other: K) {
        self.waits_for.entry(waiter).or_default().push(other);
    }

    /// One wait of `waiter` for `other` is over. Without one it changes nothing.
    pub fn waits_no_more(&mut self, waiter: K, other: K) {
        let Some(others) = self.waits_for.get_mut(&waiter) else { return };
        if let Some(index) = others.iter().position(|&held| held == other) {
            others.swap_remove(index);
        }
        if others.is_empty() {
            self.waits_for.remove(&waiter);
        }
    }

    /// A shortest way along who waits for whom, both ends included; `from` alone where it is `to`.
    #[must_use]
    pub fn way(&self, from: K, to: K) -> Option<Vec<K>> {
        if from == to {
            return Some(vec![from]);
        }
        if !self.waits_for.contains_key(&from) {
            return None;
        }
        let mut seen: HashSet<K> = HashSet::from([from]);
        // Each with the index of the one that waits for it.
        let mut reached = vec![(from, 0)];
        let mut index = 0;
        while let Some(&(waiter, _)) = reached.get(index) {
            for &next in self.waits_for.get(&waiter).into_iter().flatten() {
                if next == to {
                    return Some(way_back(&reached, index, to));
                }
                if seen.insert(next) {
                    reached.push((next, index));
                }
            }
            index += 1;
        }
        None
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits_for.is_empty()
    }
}

fn way_back<K: Copy>(reached: &[(K, usize)], mut index: usize, to: K) -> Vec<K> {
    let mut way = vec![to];
    while let Some(&(waiter, before)) = reached.get(index) {
        way.push(waiter);
        if index == 0 {
            break;
        }
        index = before;
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn graph<K: Copy + Eq + Hash>(waits: impl IntoIterator<Item = (K, K)>) -> Waits<K> {
        let mut graph = Waits::default();
        waits.into_iter().for_each(|(waiter, other)| graph.waits(waiter, other));
        graph
    }

    #[test]
    fn a_circle_is_seen_before_it_is_closed() {
        let graph = graph([("a", "b"), ("b", "c"), ("x", "y")]);
        assert_eq!(graph.way("a", "c"), Some(vec!["a", "b", "c"]));
        assert_eq!((graph.way("c", "a"), graph.way("a", "y"), graph.way("c", "c")), (None, None, Some(vec!["c"])));
    }

    #[test]
    fn who_waits_twice_has_to_stop_twice() {
        let mut graph = graph([("a", "b"), ("a", "b")]);
        graph.waits_no_more("a", "b");
        assert_eq!(graph.way("a", "b"), Some(vec!["a", "b"]));
        graph.waits_no_more("a", "b");
        assert_eq!((graph.way("a", "b"), graph.is_empty()), (None, true));
        graph.waits_no_more("a", "b");
    }

    #[test]
    fn a_long_chain_and_a_dense_crowd_are_searched_once() {
        let chain = graph((0..100_000u32).map(|n| (n, n + 1)));
        assert_eq!(chain.way(0, 100_000).map(|way| way.len()), Some(100_001));
        let crowd = graph((0..400u32).flat_map(|a| (0..400).map(move |b| (a, b))));
        assert_eq!((crowd.way(0, 999), crowd.way(3, 7)), (None, Some(vec![3, 7])));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_way_is_found_where_there_is_one_and_its_steps_are_waits(
            started in vec((0..8u8, 0..8u8), 0..24),
            ended in vec((0..8u8, 0..8u8), 0..24),
            from in 0..8u8,
            to in 0..8u8,
        ) {
            let mut graph = graph(started.iter().copied());
            let mut waits = started;
            for (waiter, other) in ended {
                graph.waits_no_more(waiter, other);
                if let Some(index) = waits.iter().position(|&wait| wait == (waiter, other)) {
                    waits.remove(index);
                }
            }
            let mut reachable = vec![from];
            for _ in 0..8 {
                let next: Vec<_> = waits.iter().filter(|wait| reachable.contains(&wait.0)).map(|wait| wait.1).collect();
                reachable.extend(next.into_iter().collect::<std::collections::HashSet<_>>());
            }
            let way = graph.way(from, to);
            prop_assert_eq!(way.is_some(), reachable.contains(&to));
            if let Some(way) = way {
                prop_assert_eq!((way.first(), way.last()), (Some(&from), Some(&to)));
                prop_assert!(way.windows(2).all(|step| waits.contains(&(step[0], step[1]))));
            }
            prop_assert_eq!(graph.is_empty(), waits.is_empty());
        }
    }
}
