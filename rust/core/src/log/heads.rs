//! The heads of all entities: last durable revision and where the last unit stands. In memory, one per entity that has a
//! unit. An entity of which nothing but records of commands is durable has revision 0 and is not stored.
//!
//! Ids are kept whole, so that a look-up is exact and needs no disk. An entity takes 28 bytes, its id, and a place of 5
//! bytes in a table that is 7/16 to 7/8 full. While a batch is being committed, what it will change is kept apart; a
//! reader never sees a revision that is not durable.

use super::format::Address;
use super::pages::Pages;
use crate::entities::shard::entity_hash;
use crate::journal::NOTES;
use hashbrown::{HashMap, HashTable};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// The last durable unit of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Revision of the entity's last event or state; 0 while none is durable.
    pub revision: u64,
    /// Where its last unit stands.
    pub address: Address,
}

impl Head {
    /// The head of an entity that has no unit.
    const NONE: Self = Self { revision: 0, address: Address::NONE };
}

/// Packed, since there is one of every entity that was ever stored.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
struct Entry {
    revision: u64,
    address: Address,
    /// Where the id starts in `ids`, in 40 bits; then its length, in 8, and the number of its kind, in 16.
    id: u64,
    /// 32 bits of the hash of the id, so that a larger table is filled without a look at the ids.
    short: u32,
}

impl Entry {
    fn kind(self) -> usize {
        (self.id >> 48) as usize
    }

    fn head(self) -> Head {
        Head { revision: self.revision, address: self.address }
    }
}

/// Bytes of ids that lie together.
const BLOCK: usize = 1 << 16;

/// Notes listed in one go, so that a commit never waits long for the lock.
const NOTES_AT_ONCE: usize = 64;

/// All heads of a store.
#[derive(Debug, Default)]
pub struct Heads {
    kinds: Vec<Arc<str>>,
    /// The ids, one after the other; none is in two blocks.
    ids: Vec<Vec<u8>>,
    entries: Pages<Entry>,
    table: HashTable<u32>,
    /// The names of notes, sorted, and the numbers of their entries.
    notes: BTreeMap<Arc<str>, u32>,
    /// What the batch under way changes.
    pending: HashMap<u32, Head>,
    stored: u64,
}

fn short(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

fn spread(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Heads {
    fn id_of(&self, entry: Entry) -> &[u8] {
        let start = usize::try_from(entry.id & ((1 << 40) - 1)).unwrap_or(usize::MAX);
        let len = entry.id >> 40 & 0xff;
        let block = self.ids.get(start / BLOCK).map(Vec::as_slice).unwrap_or_default();
        block.get(start % BLOCK..start % BLOCK + len as usize).unwrap_or_default()
    }

    fn entry(&self, number: u32) -> Option<Entry> {
        self.entries.get(number as usize).copied()
    }

    fn find(&self, kind: &str, id: &str, hash: u64) -> Option<u32> {
        let kind = self.kinds.iter().position(|k| &**k == kind)?;
        let short = short(hash);
        let same = |entry: Entry| entry.short == short && entry.kind() == kind && self.id_of(entry) == id.as_bytes();
        self.table.find(spread(short), |&number| self.entry(number).is_some_and(same)).copied()
    }

    /// Keeps the bytes of an id and gives the place where they start.
    fn keep(&mut self, id: &str) -> usize {
        if self.ids.last().is_none_or(|block| block.len() + id.len() > BLOCK) {
            // The first block grows, so that a small store is small.
            self.ids.push(Vec::with_capacity(if self.ids.is_empty() { 0 } else { BLOCK }));
        }
        let before = (self.ids.len() - 1) * BLOCK;
        self.ids.last_mut().map_or(before, |block| {
            block.extend_from_slice(id.as_bytes());
            before + block.len() - id.len()
        })
    }

    fn insert(&mut self, kind: &str, id: &str, hash: u64) -> u32 {
        let kind = self.kinds.iter().position(|k| &**k == kind).unwrap_or_else(|| {
            self.kinds.push(Arc::from(kind));
            self.kinds.len() - 1
        });
        assert!(kind <= usize::from(u16::MAX), "a store holds at most 65,536 kinds");
        let (number, start) = (self.entries.len() as u32, self.keep(id) as u64);
        let id_and_kind = start | (id.len() as u64) << 40 | (kind as u64) << 48;
        self.entries.push(Entry { revision: 0, address: Address::NONE, id: id_and_kind, short: short(hash) });
        let entries = &self.entries;
        let hash_of = |number: u32| entries.get(number as usize).map_or(0, |entry| spread(entry.short));
        // In the order of the entries, which is several times faster than in that of the table.
        let first = if self.table.len() < self.table.capacity() {
            number
        } else {
            self.table = HashTable::with_capacity(self.table.len() + 1);
            0
        };
        for (number, entry) in (first..).map_while(|number| Some((number, entries.get(number as usize)?))) {
            self.table.insert_unique(spread(entry.short), number, |&held| hash_of(held));
        }
        if self.kinds.get(kind).is_some_and(|kind| **kind == *NOTES) {
            self.notes.insert(Arc::from(id), number);
        }
        number
    }

    /// Some of the notes that start with `prefix` and come behind `after`, and where their last values stand; removed ones
    /// as well.
    #[must_use]
    pub fn notes(&self, prefix: &str, after: Option<&str>) -> Vec<(Arc<str>, Address)> {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let named =
            self.notes.range::<str, _>((start, Bound::Unbounded)).take_while(|(name, _)| name.starts_with(prefix));
        let head = |number: u32| self.entry(number).map(Entry::head).filter(|head| *head != Head::NONE);
        named
            .filter_map(|(name, &number)| Some((Arc::clone(name), head(number)?.address)))
            .take(NOTES_AT_ONCE)
            .collect()
    }

    /// The durable head of an entity that has a unit.
    #[must_use]
    pub fn get(&self, kind: &str, id: &str, hash: u64) -> Option<Head> {
        let number = self.find(kind, id, hash)?;
        self.entry(number).map(Entry::head).filter(|head| *head != Head::NONE)
    }

    /// The head that a unit committed next would follow, the batch under way included.
    #[must_use]
    pub fn latest(&self, kind: &str, id: &str, hash: u64) -> Head {
        let Some(number) = self.find(kind, id, hash) else { return Head::NONE };
        let pending = self.pending.get(&number).copied();
        pending.or_else(|| self.entry(number).map(Entry::head)).unwrap_or(Head::NONE)
    }

    /// Notes that the batch under way moves an entity to `head`.
    pub fn advance(&mut self, kind: &str, id: &str, hash: u64, head: Head) {
        let number = self.find(kind, id, hash).unwrap_or_else(|| self.insert(kind, id, hash));
        self.pending.insert(number, head);
    }

    /// The batch under way is durable: what it changed can be seen from now on.
    pub fn publish(&mut self) {
        for (number, head) in self.pending.drain() {
            if let Some(entry) = self.entries.get_mut(number as usize) {
                // At an opening a head of a checkpoint may be newer than what is found again behind it.
                self.stored -= u64::from(entry.revision > 0);
                self.stored += u64::from(head.revision > 0);
                (entry.revision, entry.address) = (head.revision, head.address);
            }
        }
    }

    /// Sets a head read from a checkpoint or found by a scan.
    pub fn set(&mut self, kind: &str, id: &str, head: Head) {
        self.advance(kind, id, entity_hash(id), head);
        self.publish();
    }

    /// Entities with a durable event or state.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Entities known, those included of which nothing is durable yet.
    #[must_use]
    pub fn known(&self) -> usize {
        self.entries.len()
    }

    /// The kinds under which an id has durable events or states, sorted.
    #[must_use]
    pub fn kinds_of(&self, id: &str) -> Vec<Arc<str>> {
        let hash = entity_hash(id);
        let stored = |kind: &&Arc<str>| self.get(kind, id, hash).is_some_and(|head| head.revision > 0);
        let mut found: Vec<_> = self.kinds.iter().filter(stored).map(Arc::clone).collect();
        found.sort();
        found
    }

    /// Visits the durable heads numbered `range`, for a checkpoint written in slices.
    pub fn visit(&self, range: std::ops::Range<usize>, visit: &mut dyn FnMut(&str, &[u8], Head)) {
        for &entry in range.map_while(|number| self.entries.get(number)) {
            if entry.head() != Head::NONE
                && let Some(kind) = self.kinds.get(entry.kind())
            {
                visit(kind, self.id_of(entry), entry.head());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(revision: u64) -> Head {
        Head { revision, address: Address { segment: 1, offset: revision as u32 * 8 } }
    }

    #[test]
    fn a_revision_is_seen_once_its_batch_is_published() {
        let mut heads = Heads::default();
        let hash = entity_hash("a");
        heads.advance("Account", "a", hash, head(1));
        assert_eq!(heads.get("Account", "a", hash), None);
        assert_eq!(heads.latest("Account", "a", hash), head(1));
        heads.advance("Account", "a", hash, head(3));
        heads.publish();
        assert_eq!(heads.get("Account", "a", hash), Some(head(3)));
        assert_eq!(heads.stored(), 1);
    }

    #[test]
    fn a_unit_without_content_gives_an_entity_a_head_and_leaves_it_out_of_what_is_stored() {
        let mut heads = Heads::default();
        let only_a_command = Head { revision: 0, address: head(1).address };
        heads.set("Account", "a", head(2));
        heads.set("Account", "b", only_a_command);
        assert_eq!(heads.get("Account", "b", entity_hash("b")), Some(only_a_command));
        assert_eq!((heads.stored(), heads.kinds_of("b")), (1, vec![]));
        let mut visited = 0;
        heads.visit(0..heads.known(), &mut |_, _, _| visited += 1);
        assert_eq!(visited, 2);
        heads.set("Account", "a", only_a_command);
        assert_eq!(heads.stored(), 0);
        heads.set("Account", "a", head(2));
        assert_eq!(heads.stored(), 1);
    }

    #[test]
    fn an_entry_is_twenty_eight_bytes() {
        assert_eq!(size_of::<Entry>(), 28);
    }

    #[test]
    fn kinds_do_not_share_ids() {
        let mut heads = Heads::default();
        heads.set("Order", "7", head(2));
        heads.set("Account", "7", head(5));
        assert_eq!(heads.kinds_of("7").iter().map(|k| &**k).collect::<Vec<_>>(), ["Account", "Order"]);
        assert_eq!(heads.kinds_of("8"), Vec::<Arc<str>>::new());
        assert_eq!(heads.latest("Order", "7", entity_hash("7")), head(2));
    }

    #[test]
    fn a_hundred_thousand_heads_are_found_again() {
        let mut heads = Heads::default();
        for n in 1..=100_000u64 {
            heads.set("K", &format!("id-{n}"), head(n));
        }
        for n in 1..=100_000u64 {
            let id = format!("id-{n}");
            assert_eq!(heads.get("K", &id, entity_hash(&id)), Some(head(n)));
        }
    }
}
