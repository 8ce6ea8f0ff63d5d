//! Page cache and disk, kept apart file by file and name by name.
//!
//! A change reaches the cache at once and waits in a list until a sync of its file (for bytes and size) or of its
//! directory (for names) takes it to the disk. A name is not made durable by a sync of the file behind it, nor the
//! file by a sync of its directory.

use super::content::{Content, PAGE};
use super::faults::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) type Ino = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    File(Ino),
    Directory,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) cache: Content,
    pub(super) disk: Content,
    /// Pages whose write-back failed: clean in the cache, and not on the disk.
    pub(super) lost: BTreeSet<u64>,
    /// Syncs that failed. Each descriptor is told once, by its next sync, of those since it was opened.
    pub(super) failures: u64,
}

/// A change of bytes or size that no sync covers yet.
#[derive(Debug, Clone)]
pub(super) struct DataChange {
    pub(super) ino: Ino,
    pub(super) what: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Write { offset: u64, bytes: Arc<[u8]> },
    Len(u64),
}

impl DataChange {
    pub(super) fn apply(&self, content: &mut Content) {
        match &self.what {
            Data::Write { offset, bytes } => content.write(bytes, *offset),
            Data::Len(len) => content.set_len(*len),
        }
    }
}

/// A change of names that no directory sync covers yet.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Made(PathBuf, Entry),
    Removed(PathBuf, Entry),
    Renamed(PathBuf, PathBuf, Entry),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Made(path, _) | Self::Removed(path, _) => path.parent() == Some(dir),
            Self::Renamed(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    /// What the change leaves behind, also where an earlier one never reached the disk.
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        let mut forget = |path: &Path, entry: Entry| {
            if names.get(path) == Some(&entry) {
                names.remove(path);
            }
        };
        match self {
            Self::Made(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            Self::Removed(path, entry) => forget(path, *entry),
            Self::Renamed(from, to, entry) => {
                forget(from, *entry);
                names.insert(to.clone(), *entry);
            }
        }
    }
}

/// What the cache holds of a file after its sync failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterFailedSync {
    /// What was written, marked clean (ext4, XFS).
    #[default]
    Kept,
    /// What the disk holds (btrfs).
    Reverted,
}

#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) nodes: BTreeMap<Ino, Node>,
    pub(super) names: BTreeMap<PathBuf, Entry>,
    pub(super) durable_names: BTreeMap<PathBuf, Entry>,
    pub(super) data: Vec<DataChange>,
    pub(super) name_changes: Vec<NameChange>,
    /// Blocks that the disk has; `None` is without bound.
    pub(super) capacity: Option<u64>,
    pub(super) after_failed_sync: AfterFailedSync,
    pub(super) next: Ino,
}

impl Disk {
    pub(super) fn new() -> Self {
        let root: BTreeMap<_, _> =
            ["/", "/data"].map(|path| (PathBuf::from(path), Entry::Directory)).into_iter().collect();
        Self {
            nodes: BTreeMap::new(),
            names: root.clone(),
            durable_names: root,
            data: Vec::new(),
            name_changes: Vec::new(),
            capacity: None,
            after_failed_sync: AfterFailedSync::Kept,
            next: 1,
        }
    }

    pub(super) fn entry(&self, path: &Path) -> Option<Entry> {
        self.names.get(path).copied()
    }

    pub(super) fn need_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|dir| self.entry(dir)) {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Ino> {
        match self.entry(path) {
            Some(Entry::File(ino)) => Ok(ino),
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Ino> {
        self.need_parent(path)?;
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node::default());
        self.change_name(NameChange::Made(path.to_owned(), Entry::File(ino)));
        Ok(ino)
    }

    pub(super) fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    pub(super) fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|entry| match entry {
            Entry::File(ino) => self.nodes.get(ino),
            Entry::Directory => None,
        });
        files.map(|node| node.cache.blocks()).sum()
    }

    /// Writes as much as there is room for; says whether that was all.
    pub(super) fn write(&mut self, ino: Ino, bytes: &[u8], offset: u64) -> io::Result<()> {
        let fits = self.fitting(ino, bytes.len(), offset);
        let bytes = bytes.split_at(fits.min(bytes.len())).0;
        if !bytes.is_empty() {
            self.change(ino, Data::Write { offset, bytes: bytes.into() });
            let page = PAGE as u64;
            self.dirty_again(ino, offset / page, (offset + bytes.len() as u64).div_ceil(page));
        }
        if fits == usize::MAX { Ok(()) } else { Err(Fault::NoSpace.error()) }
    }

    /// Bytes of a write for which there are blocks; `usize::MAX` for all.
    fn fitting(&self, ino: Ino, len: usize, offset: u64) -> usize {
        let (Some(capacity), Some(node)) = (self.capacity, self.nodes.get(&ino)) else { return usize::MAX };
        let page = PAGE as u64;
        let mut free = capacity.saturating_sub(self.used());
        for index in offset / page..(offset + len as u64).div_ceil(page) {
            if node.cache.has_block(index) {
                continue;
            }
            if free == 0 {
                return (index * page).saturating_sub(offset) as usize;
            }
            free -= 1;
        }
        usize::MAX
    }

    pub(super) fn change(&mut self, ino: Ino, what: Data) {
        let change = DataChange { ino, what };
        if let Some(node) = self.nodes.get_mut(&ino) {
            change.apply(&mut node.cache);
        }
        self.data.push(change);
    }

    /// A page whose write-back had failed is written back whole once it is dirty again.
    fn dirty_again(&mut self, ino: Ino, from: u64, to: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let pages: Vec<u64> = node.lost.range(from..to).copied().collect();
        for index in pages {
            let mut page = [0; PAGE];
            let offset = index * PAGE as u64;
            let have = node.cache.read(&mut page, offset);
            node.lost.remove(&index);
            let bytes = page.split_at(have).0.into();
            self.data.push(DataChange { ino, what: Data::Write { offset, bytes } });
        }
    }

    /// Takes the file's changes to the disk.
    pub(super) fn sync(&mut self, ino: Ino) {
        let changes = self.take(ino);
        if let Some(node) = self.nodes.get_mut(&ino) {
            changes.iter().for_each(|change| change.apply(&mut node.disk));
        }
    }

    /// Loses the file's changes, or all but the first half of them.
    pub(super) fn sync_failed(&mut self, ino: Ino, half: bool) {
        let changes = self.take(ino);
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.failures += 1;
        let kept = if half { changes.len() / 2 } else { 0 };
        for (index, change) in changes.iter().enumerate() {
            if index < kept {
                change.apply(&mut node.disk);
            } else if let Data::Write { offset, bytes } = &change.what {
                let page = PAGE as u64;
                node.lost.extend(offset / page..(offset + bytes.len() as u64).div_ceil(page));
            }
        }
        if self.after_failed_sync == AfterFailedSync::Reverted {
            node.cache = node.disk.clone();
            node.lost.clear();
        }
    }

    pub(super) fn failures(&self, ino: Ino) -> u64 {
        self.nodes.get(&ino).map_or(0, |node| node.failures)
    }

    fn take(&mut self, ino: Ino) -> Vec<DataChange> {
        let (taken, left) = std::mem::take(&mut self.data).into_iter().partition(|change| change.ino == ino);
        self.data = left;
        taken
    }

    /// Takes the directory's names to the disk.
    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (taken, left): (Vec<_>, _) =
            std::mem::take(&mut self.name_changes).into_iter().partition(|change| change.touches(dir));
        taken.iter().for_each(|change| change.apply(&mut self.durable_names));
        self.name_changes = left;
    }
}
