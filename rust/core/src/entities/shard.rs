//! Which shard an entity belongs to: a stable hash of its id, modulo a number fixed in the store.
//!
//! A shard is the unit of projection offsets, of parallelism and, later, of ownership and locks; never of a sync.

use xxhash_rust::xxh3::xxh3_64;

/// Shards of a new store.
pub const DEFAULT_SHARDS: u16 = 128;

/// The stable hash of an entity id (XXH3, 64 bits, seed 0). Part of the format: it never changes.
#[must_use]
pub fn entity_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The shard of an entity in a store of `shards` shards (at least 1).
#[must_use]
pub fn shard_of(hash: u64, shards: u16) -> u16 {
    let shard = hash % u64::from(shards.max(1));
    u16::try_from(shard).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_an_id_is_part_of_the_format() {
        assert_eq!(entity_hash(""), 0x2d06_8005_38d3_94c2);
        assert_eq!(shard_of(entity_hash("acct-1"), 128), (entity_hash("acct-1") % 128) as u16);
    }

    #[test]
    fn ids_spread_over_all_shards() {
        let mut seen = [0u32; 128];
        for n in 0..12_800 {
            seen[shard_of(entity_hash(&format!("customer-{n}")), 128) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (50..200).contains(&n)), "{seen:?}");
    }
}
