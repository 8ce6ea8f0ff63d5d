//! About how often a hash was seen of late, in eight bytes per entity whose place is fought for.
//!
//! A count-min sketch of four-bit counters behind a doorkeeper (Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient
//! Cache Admission Policy"): the first sight of a hash sets two bits, later ones count, up to 15. After ten sights per
//! entity all counts are halved and the doorkeeper forgets, in one pass over the sketch. An estimate can be too high,
//! where hashes share counters, and is never too low within a period. All that is known of a hash lies in one line of
//! the processor's cache.

#![expect(clippy::indexing_slicing, reason = "every index is reduced to its table's size")]

/// Entities per block, and sights per entity between two halvings.
const ENTITIES: usize = 8;
const SIGHTS: usize = 10;
/// A sketch for fewer entities is made as if for so many.
const LEAST: usize = 64;
const ROWS: usize = 3;
const FULL: u64 = 15;

/// Estimates of how often each hash was seen.
#[derive(Debug)]
pub struct Sketch {
    blocks: Vec<Block>,
    seen: usize,
    period: usize,
}

/// Three rows of 32 counters, and two bitmaps.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Block {
    counters: [[u64; 2]; ROWS],
    doorkeeper: [u64; 2],
}

/// Where in its block a hash is counted.
struct Spots {
    door: [u64; 2],
    /// The word and the shift of the counter in each row.
    counters: [(usize, u32); ROWS],
}

impl Spots {
    fn of(hash: u32) -> Self {
        let mixed = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32;
        let counter = |shift: u32| {
            let spot = bits >> shift;
            ((spot >> 4) as usize % 2, spot % 16 * 4)
        };
        Self { door: [1 << (bits % 64), 1 << ((bits >> 6) % 64)], counters: [counter(12), counter(17), counter(22)] }
    }
}

impl Block {
    fn knows(&self, spots: &Spots) -> bool {
        (self.doorkeeper[0] & spots.door[0] != 0) & (self.doorkeeper[1] & spots.door[1] != 0)
    }

    fn counts(&self, spots: &Spots) -> [u64; ROWS] {
        std::array::from_fn(|row| {
            let (word, shift) = spots.counters[row];
            self.counters[row][word] >> shift & FULL
        })
    }
}

fn least(counts: [u64; ROWS]) -> u64 {
    counts.into_iter().fold(FULL, u64::min)
}

impl Sketch {
    /// A sketch for the choice among `entities`.
    #[must_use]
    pub fn new(entities: usize) -> Self {
        let entities = entities.max(LEAST);
        Self {
            blocks: vec![Block::default(); entities.div_ceil(ENTITIES)],
            seen: 0,
            period: entities.saturating_mul(SIGHTS),
        }
    }

    /// Counts one sight.
    #[inline]
    pub fn see(&mut self, hash: u32) {
        let spots = Spots::of(hash);
        let block = self.block_of(hash);
        let block = &mut self.blocks[block];
        let counts = block.counts(&spots);
        let least = least(counts);
        // No branch: what a hash leads to cannot be predicted. Counters above the least are shared with hashes that are
        // seen more often, and are right without this one.
        let counted = block.knows(&spots) & (least < FULL);
        for ((row, (word, shift)), count) in block.counters.iter_mut().zip(spots.counters).zip(counts) {
            row[word] += u64::from(counted & (count == least)) << shift;
        }
        block.doorkeeper[0] |= spots.door[0];
        block.doorkeeper[1] |= spots.door[1];
        self.seen += 1;
        if self.seen >= self.period {
            self.age();
        }
    }

    /// About how often it was seen, from 0 to 16.
    #[must_use]
    pub fn estimate(&self, hash: u32) -> u32 {
        let spots = Spots::of(hash);
        let block = &self.blocks[self.block_of(hash)];
        u32::from(block.knows(&spots)) + least(block.counts(&spots)) as u32
    }

    fn block_of(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.blocks.len() as u64) >> 32) as usize
    }

    #[cold]
    fn age(&mut self) {
        for block in &mut self.blocks {
            block.doorkeeper = [0; 2];
            for word in block.counters.as_flattened_mut() {
                *word = *word >> 1 & 0x7777_7777_7777_7777;
            }
        }
        self.seen = self.period / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that spread like those of ids.
    fn hash(number: u32) -> u32 {
        xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()) as u32
    }

    #[test]
    fn a_block_is_one_line_of_the_cache() {
        assert_eq!((size_of::<Block>(), align_of::<Block>()), (64, 64));
    }

    #[test]
    fn sights_are_counted_up_to_sixteen() {
        let mut sketch = Sketch::new(64);
        let estimates: Vec<_> = (0..20)
            .map(|_| {
                let estimate = sketch.estimate(hash(1));
                sketch.see(hash(1));
                estimate
            })
            .collect();
        assert_eq!(estimates, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16, 16, 16]);
    }

    #[test]
    fn an_estimate_is_never_too_low_and_seldom_too_high() {
        let mut sketch = Sketch::new(1000);
        let times = |number: u32| 1 + number % 4;
        for number in 0..1000 {
            (0..times(number)).for_each(|_| sketch.see(hash(number)));
        }
        let too_high = (0..1000).filter(|&number| {
            let estimate = sketch.estimate(hash(number));
            assert!(estimate >= times(number), "{number}: {estimate}");
            estimate > times(number)
        });
        let too_high = too_high.count();
        assert!(too_high < 100, "{too_high} of 1000");
    }

    #[test]
    fn what_was_seen_long_ago_fades() {
        let mut sketch = Sketch::new(100);
        (0..15).for_each(|_| sketch.see(hash(0)));
        for number in 1..2000 {
            sketch.see(hash(number));
        }
        assert!(sketch.estimate(hash(0)) < 8, "{}", sketch.estimate(hash(0)));
    }
}
