//! The heads of all entities: last durable revision and where the last unit stands. In memory, one per entity that has a
//! unit. An entity of which nothing but records of commands is durable has revision 0 and is not stored.
//!
//! Ids are kept whole, so that a look-up is exact and needs no disk. While a batch is being committed, what it will
//! change is kept apart; a reader never sees a revision that is not durable.

use super::format::Address;
use crate::entities::shard::entity_hash;
use hashbrown::HashTable;
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

#[derive(Debug, Clone, Copy)]
struct Entry {
    head: Head,
    /// Where the id starts in `ids`, and its length in the highest byte.
    id: u64,
    kind: u32,
    /// Index + 1 in `pending`; 0 while no batch under way concerns it.
    pending: u32,
}

/// All heads of a store.
#[derive(Debug, Default)]
pub struct Heads {
    kinds: Vec<Arc<str>>,
    ids: Vec<u8>,
    entries: Vec<Entry>,
    table: HashTable<(u32, u32)>,
    pending: Vec<(u32, Head)>,
    stored: u64,
}

/// The table keeps 32 bits of the hash, so that growing it never touches the ids.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

fn spread(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Heads {
    fn id_of(&self, entry: &Entry) -> &[u8] {
        let start = usize::try_from(entry.id & ((1 << 56) - 1)).unwrap_or(usize::MAX);
        let len = (entry.id >> 56) as usize;
        self.ids.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    fn kind_number(&self, kind: &str) -> Option<u32> {
        self.kinds.iter().position(|k| &**k == kind).and_then(|n| u32::try_from(n).ok())
    }

    fn find(&self, kind: &str, id: &str, hash: u64) -> Option<u32> {
        let kind = self.kind_number(kind)?;
        let short = short(hash);
        self.table
            .find(spread(short), |&(tag, number)| {
                tag == short
                    && self
                        .entries
                        .get(number as usize)
                        .is_some_and(|e| e.kind == kind && self.id_of(e) == id.as_bytes())
            })
            .map(|&(_, number)| number)
    }

    fn insert(&mut self, kind: &str, id: &str, hash: u64) -> u32 {
        let kind = self.kind_number(kind).unwrap_or_else(|| {
            self.kinds.push(Arc::from(kind));
            (self.kinds.len() - 1) as u32
        });
        let number = self.entries.len() as u32;
        let start = self.ids.len() as u64;
        self.ids.extend_from_slice(id.as_bytes());
        self.entries.push(Entry { head: Head::NONE, id: start | (id.len() as u64) << 56, kind, pending: 0 });
        let short = short(hash);
        self.table.insert_unique(spread(short), (short, number), |&(tag, _)| spread(tag));
        number
    }

    /// The durable head of an entity that has a unit.
    #[must_use]
    pub fn get(&self, kind: &str, id: &str, hash: u64) -> Option<Head> {
        let number = self.find(kind, id, hash)?;
        self.entries.get(number as usize).map(|e| e.head).filter(|head| *head != Head::NONE)
    }

    /// The head that a unit committed next would follow, the batch under way included.
    #[must_use]
    pub fn latest(&self, kind: &str, id: &str, hash: u64) -> Head {
        let Some(entry) = self.find(kind, id, hash).and_then(|n| self.entries.get(n as usize)) else {
            return Head::NONE;
        };
        match (entry.pending as usize).checked_sub(1).and_then(|n| self.pending.get(n)) {
            Some(&(_, head)) => head,
            None => entry.head,
        }
    }

    /// Notes that the batch under way moves an entity to `head`.
    pub fn advance(&mut self, kind: &str, id: &str, hash: u64, head: Head) {
        let number = self.find(kind, id, hash).unwrap_or_else(|| self.insert(kind, id, hash));
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        match (entry.pending as usize).checked_sub(1).and_then(|n| self.pending.get_mut(n)) {
            Some(pending) => pending.1 = head,
            None => {
                self.pending.push((number, head));
                entry.pending = self.pending.len() as u32;
            }
        }
    }

    /// The batch under way is durable: what it changed can be seen from now on.
    pub fn publish(&mut self) {
        for (number, head) in self.pending.drain(..) {
            if let Some(entry) = self.entries.get_mut(number as usize) {
                // At an opening a head of a checkpoint may be newer than what is found again behind it.
                self.stored -= u64::from(entry.head.revision > 0);
                self.stored += u64::from(head.revision > 0);
                entry.head = head;
                entry.pending = 0;
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
        for entry in self.entries.get(range).unwrap_or_default() {
            if entry.head != Head::NONE
                && let Some(kind) = self.kinds.get(entry.kind as usize)
            {
                visit(kind, self.id_of(entry), entry.head);
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
