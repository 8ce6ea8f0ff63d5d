//! What a crash leaves of the changes that no completed sync covers.

use super::content::Content;
use super::disk::{Data, DataChange, Disk, Entry, Ino, Node};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What becomes of bytes and sizes. Changes are numbered in the order in which they were made, over all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bytes {
    /// All lost.
    Dropped,
    /// All on the disk.
    Kept,
    /// The first so many on the disk.
    Prefix(usize),
    /// All on the disk but one.
    Without(usize),
    /// One on the disk alone: later writes overtook earlier ones.
    Only(usize),
    /// Each kept or lost by chance.
    Some,
    /// Each block of this size of each write kept or lost by chance.
    Torn(u64),
    /// Each write kept from its start up to a block of this size chosen by chance.
    Cut(u64),
    /// Sizes on the disk, and zeros where the bytes should be.
    SizeAhead,
    /// Sizes on the disk, and bytes from elsewhere in the file where the new ones should be.
    Stale,
}

/// What becomes of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Names {
    /// Creations, renames and removals lost.
    Lost,
    /// All on the disk.
    Kept,
    /// The first so many on the disk.
    Prefix(usize),
    /// Each kept or lost by chance.
    Some,
}

/// What a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crash {
    /// Bytes and sizes.
    pub bytes: Bytes,
    /// Names.
    pub names: Names,
}

impl Crash {
    /// Nothing but what completed syncs cover.
    pub const HARSH: Self = Self { bytes: Bytes::Dropped, names: Names::Lost };
    /// Everything.
    pub const MILD: Self = Self { bytes: Bytes::Kept, names: Names::Kept };
}

/// A small generator: the same seed, the same crash.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

impl Disk {
    /// The disk as a machine finds it that starts after the crash.
    pub(super) fn after_crash(&self, crash: Crash, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut left = Self::new();
        left.names = self.names_left(crash.names, &mut dice);
        left.nodes = self.bytes_left(crash.bytes, &mut dice);
        let found = left.names.clone();
        left.names.retain(|path, _| path.ancestors().skip(1).all(|dir| found.get(dir) == Some(&Entry::Directory)));
        let names = &left.names;
        left.nodes.retain(|ino, _| names.values().any(|entry| *entry == Entry::File(*ino)));
        left.settle(self);
        left
    }

    fn names_left(&self, policy: Names, dice: &mut Dice) -> BTreeMap<PathBuf, Entry> {
        let mut names = self.durable_names.clone();
        for (index, change) in self.name_changes.iter().enumerate() {
            let kept = match policy {
                Names::Lost => false,
                Names::Kept => true,
                Names::Prefix(count) => index < count,
                Names::Some => dice.coin(),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        names
    }

    fn bytes_left(&self, policy: Bytes, dice: &mut Dice) -> BTreeMap<Ino, Node> {
        let mut nodes: BTreeMap<Ino, Node> = BTreeMap::new();
        for (ino, node) in &self.nodes {
            nodes.insert(*ino, Node { disk: node.disk.clone(), ..Node::default() });
        }
        for (index, change) in self.data.iter().enumerate() {
            let Some(Node { disk, .. }) = nodes.get_mut(&change.ino) else { continue };
            let kept = match policy {
                Bytes::Dropped => false,
                Bytes::Kept => true,
                Bytes::Prefix(count) => index < count,
                Bytes::Without(one) => index != one,
                Bytes::Only(one) => index == one,
                Bytes::Some => dice.coin(),
                Bytes::Torn(block) => {
                    tear(change, block, disk, |_| dice.coin());
                    false
                }
                Bytes::Cut(block) => {
                    let upto = dice.next();
                    tear(change, block, disk, |(nth, count)| nth < upto % (count + 1));
                    false
                }
                Bytes::SizeAhead => {
                    disk.set_len(disk.len().max(end(change)));
                    false
                }
                Bytes::Stale => {
                    stale(change, disk);
                    false
                }
            };
            if kept {
                change.apply(disk);
            }
        }
        nodes
    }

    /// The cache of a machine that just started holds nothing but the disk.
    fn settle(&mut self, before: &Self) {
        for node in self.nodes.values_mut() {
            node.cache = node.disk.clone();
        }
        self.durable_names = self.names.clone();
        self.capacity = before.capacity;
        self.after_failed_sync = before.after_failed_sync;
        self.next = before.next;
    }
}

fn end(change: &DataChange) -> u64 {
    match &change.what {
        Data::Write { offset, bytes } => offset + bytes.len() as u64,
        Data::Len(len) => *len,
    }
}

/// Applies the blocks of a change that `kept` chooses by (number, count).
fn tear(change: &DataChange, block: u64, disk: &mut Content, mut kept: impl FnMut((u64, u64)) -> bool) {
    let Data::Write { offset, bytes } = &change.what else {
        if kept((0, 1)) {
            change.apply(disk);
        }
        return;
    };
    let (first, last) = (offset / block, end(change).div_ceil(block));
    for index in first..last {
        let from = (index * block).max(*offset);
        let to = ((index + 1) * block).min(end(change));
        if kept((index - first, last - first))
            && let Some(part) = bytes.get((from - offset) as usize..(to - offset) as usize)
        {
            disk.write(part, from);
        }
    }
}

/// Lengthens the file with what stands at its start, again and again.
fn stale(change: &DataChange, disk: &mut Content) {
    let old = disk.len();
    let more = end(change).saturating_sub(old);
    let mut bytes = vec![0xA5; more as usize];
    if old > 0 {
        for part in bytes.chunks_mut(old as usize) {
            disk.read(part, 0);
        }
    }
    disk.write(&bytes, old);
}
