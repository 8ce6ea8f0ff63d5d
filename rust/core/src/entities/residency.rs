//! Who has to leave when more entities are in memory than should be: W-TinyLFU over the resident ones.
//!
//! A newcomer starts in the window, 1 % of the limit, by recency. When it falls out of there it gets a place in the main
//! part if the [`Sketch`] has seen it more often than the entity that would have to leave for it; else it leaves itself.
//! So neither a scan nor a burst of newcomers drives out what is used all the time. In the main part an entity is on
//! probation until it is used once more; then it is protected, and at most 80 % are.
//!
//! This only says who should leave: [`Residency::victim`] names an entity, and whoever has made it leave says so with
//! [`Residency::remove`]. The limit is not a wall: while nobody may leave, more stay. The same calls give the same
//! answers. An entity costs 16 bytes here and 8 in the sketch.

#![expect(clippy::indexing_slicing, reason = "a link leads to a node; one that does not is a bug, and must be loud")]

use super::sketch::Sketch;

/// Names a resident entity: a small number, used again after [`Residency::remove`].
pub type Place = u32;

/// How many entities of a list are asked whether they may leave before one call of [`Residency::victim`] goes on.
pub const TRIES: usize = 16;

/// A sketch for more entities than this costs more than its answers are worth.
const MOST_SEEN: usize = 1 << 22;

/// Each list is a ring through a node of its own; these nodes come first, and a node names its list by that number.
const WINDOW: u32 = 0;
const PROBATION: u32 = 1;
const PROTECTED: u32 = 2;
const LISTS: u32 = 3;
/// The list of nodes that are nobody's, linked through `younger`.
const FREE: u32 = u32::MAX;

/// The resident entities, in the order in which they should leave.
#[derive(Debug)]
pub struct Residency {
    nodes: Vec<Node>,
    sizes: [usize; LISTS as usize],
    free: u32,
    sketch: Sketch,
    limit: usize,
    window: usize,
    protected: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    older: u32,
    younger: u32,
    hash: u32,
    list: u32,
}

impl Residency {
    /// Nobody is resident yet, and `limit` may be.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let window = (limit / 100).max(1);
        let main = limit.saturating_sub(window);
        Self {
            nodes: (0..LISTS).map(|list| Node { older: list, younger: list, hash: 0, list }).collect(),
            sizes: [0; LISTS as usize],
            free: FREE,
            sketch: Sketch::new(limit.min(MOST_SEEN)),
            limit,
            window,
            protected: main - main / 5,
        }
    }

    /// Gives a place to an entity that has become resident, by the stable hash of what names it.
    pub fn insert(&mut self, hash: u64) -> Place {
        let hash = (hash ^ hash >> 32) as u32;
        self.sketch.see(hash);
        let node = Node { older: FREE, younger: FREE, hash, list: WINDOW };
        let index = self.free;
        let index = if index == FREE {
            let index = u32::try_from(self.nodes.len()).unwrap_or(FREE);
            assert!(index != FREE, "at most 2^32 - 4 entities are resident");
            self.nodes.push(node);
            index
        } else {
            self.free = std::mem::replace(&mut self.nodes[index as usize], node).younger;
            index
        };
        self.link(index, WINDOW);
        self.settle();
        index - LISTS
    }

    /// Notes that the entity is used.
    #[inline]
    pub fn touch(&mut self, place: Place) {
        let Some((index, Node { hash, list, .. })) = self.resident(place) else { return };
        self.sketch.see(hash);
        if list == PROBATION {
            self.relink(index, PROTECTED);
            if self.sizes[PROTECTED as usize] > self.protected {
                self.relink(self.oldest(PROTECTED), PROBATION);
            }
        } else if self.nodes[list as usize].older != index {
            self.relink(index, list);
        }
    }

    /// Takes the place of an entity that is not resident any more. Nobody's place is left as it is.
    pub fn remove(&mut self, place: Place) {
        if let Some((index, _)) = self.resident(place) {
            self.unlink(index);
            let node = &mut self.nodes[index as usize];
            node.list = FREE;
            node.younger = self.free;
            self.free = index;
        }
    }

    /// Who should leave next; nobody while no more than the limit are resident.
    ///
    /// One that may not leave is passed over and counts as just used, so the next call asks others. After at most
    /// [`TRIES`] of each list, and as many of the window again, the answer is nobody, though one that was not asked
    /// might have left: a call ends whatever `may_leave` says.
    pub fn victim(&mut self, may_leave: impl Fn(Place) -> bool) -> Option<Place> {
        if self.len() <= self.limit {
            return None;
        }
        self.settle();
        let crowded = self.sizes[WINDOW as usize] > self.window;
        let newcomer = if crowded { self.oldest_that(WINDOW, &may_leave) } else { None };
        let settled = self.oldest_that(PROBATION, &may_leave).or_else(|| self.oldest_that(PROTECTED, &may_leave));
        let victim = match (newcomer, settled) {
            (Some(newcomer), Some(settled)) if self.estimate(newcomer) > self.estimate(settled) => {
                self.relink(newcomer, PROBATION);
                settled
            }
            (Some(newcomer), _) => newcomer,
            (None, Some(settled)) => settled,
            (None, None) => self.oldest_that(WINDOW, &may_leave)?,
        };
        Some(victim - LISTS)
    }

    /// How many entities are resident.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Whether nobody is resident.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many may be resident.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Lets newcomers into the main part while it has room.
    fn settle(&mut self) {
        let main = self.limit.saturating_sub(self.window);
        while self.sizes[WINDOW as usize] > self.window && self.len() - self.sizes[WINDOW as usize] < main {
            self.relink(self.oldest(WINDOW), PROBATION);
        }
    }

    fn oldest_that(&mut self, list: u32, may_leave: impl Fn(Place) -> bool) -> Option<u32> {
        for _ in 0..TRIES.min(self.sizes[list as usize]) {
            let index = self.oldest(list);
            if may_leave(index - LISTS) {
                return Some(index);
            }
            self.relink(index, list);
        }
        None
    }

    fn estimate(&self, index: u32) -> u32 {
        self.sketch.estimate(self.nodes[index as usize].hash)
    }

    fn resident(&self, place: Place) -> Option<(u32, Node)> {
        let index = place.checked_add(LISTS)?;
        let node = *self.nodes.get(index as usize)?;
        (node.list != FREE).then_some((index, node))
    }

    /// The oldest of a list that is not empty.
    fn oldest(&self, list: u32) -> u32 {
        self.nodes[list as usize].younger
    }

    #[inline]
    fn relink(&mut self, index: u32, list: u32) {
        self.unlink(index);
        self.link(index, list);
    }

    #[inline]
    fn unlink(&mut self, index: u32) {
        let Node { older, younger, list, .. } = self.nodes[index as usize];
        self.nodes[older as usize].younger = younger;
        self.nodes[younger as usize].older = older;
        self.sizes[list as usize] -= 1;
    }

    /// Makes it the youngest of a list.
    #[inline]
    fn link(&mut self, index: u32, list: u32) {
        let youngest = std::mem::replace(&mut self.nodes[list as usize].older, index);
        self.nodes[youngest as usize].younger = index;
        let node = &mut self.nodes[index as usize];
        node.older = youngest;
        node.younger = list;
        node.list = list;
        self.sizes[list as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resident_entity_is_sixteen_bytes_beside_the_sketch() {
        assert_eq!(size_of::<Node>(), 16);
    }
}
