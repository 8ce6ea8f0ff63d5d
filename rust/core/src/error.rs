//! What can go wrong in a store, as facts.
//!
//! Every variant carries what an operator needs to act on; the words live in one place, here. The Python layer maps a
//! variant to one class of its tree and copies the fields to attributes.

use crate::journal::{EntityKey, MAX_NAME_BYTES, MAX_NOTE_BYTES};
use std::path::PathBuf;
use std::sync::Arc;

/// The outcome of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Bytes that a completed sync covered are not what was written.
    #[error("{path}: damaged at offset {offset}: {detail}. Nothing was changed; keep a copy of the directory before you try anything", path = path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the first unreadable byte group starts.
        offset: u64,
        /// What was expected there.
        detail: String,
    },
    /// The path does not hold a store that this build can read.
    #[error("{path}: {detail}", path = path.display())]
    Format {
        /// The offending path.
        path: PathBuf,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// There is no room on the disk. Nothing of the unit was written; work goes on when there is room again.
    #[error("{path}: the disk is full; nothing of this command was written. Free some space and send it again", path = path.display())]
    Full {
        /// The store's directory.
        path: PathBuf,
    },
    /// Another process owns the store.
    #[error("{path}: the store is in use by process {owner}; one process owns a store at a time", path = path.display(), owner = pid.map_or_else(|| "(unknown)".to_owned(), |p| p.to_string()))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The owner's process id, where it could be read.
        pid: Option<u32>,
    },
    /// An earlier write or sync failed, so nothing more is accepted until the store is opened again.
    #[error(
        "the store takes no more writes since one failed ({cause}); stop and start the engine to go on from what the disk holds"
    )]
    Poisoned {
        /// The failure that closed the store.
        cause: Arc<str>,
    },
    /// The store was opened before a fork and is used in the child.
    #[error("{path}: the store was opened by process {pid} and cannot be used after a fork; open it in the child instead", path = path.display())]
    Forked {
        /// The store's directory.
        path: PathBuf,
        /// The process that opened it.
        pid: u32,
    },
    /// The write or the sync of this unit failed: it may or may not be stored.
    #[error(
        "the write of this command failed ({cause}): it may or may not be stored. Stop and start the engine, then read the entity to find out"
    )]
    OutcomeUnknown {
        /// What the operating system said.
        cause: Arc<str>,
    },
    /// The unit's first revision does not follow the last stored one.
    #[error("{kind}/{id}: expected to continue after revision {expected}, but the store holds revision {actual}")]
    Conflict {
        /// The entity's kind.
        kind: Arc<str>,
        /// The entity's id.
        id: Arc<str>,
        /// The revision the unit wanted to follow.
        expected: u64,
        /// The revision the store holds.
        actual: u64,
    },
    /// The unit, or its metadata, is larger than the store takes.
    #[error(
        "{kind}/{id}: what one command stores takes {size} bytes, more than the {cap} that the store takes at once; store less in it or raise max_unit_bytes (the limit of metadata is fixed)"
    )]
    TooLarge {
        /// The entity's kind.
        kind: Arc<str>,
        /// The entity's id.
        id: Arc<str>,
        /// Bytes of the unit or of its metadata.
        size: u64,
        /// Bytes that the store takes.
        cap: u64,
    },
    /// The name of a note or its value is larger than the store takes.
    #[error(
        "note {name}: a name of {name_size} bytes with a value of {size}; a store takes {MAX_NAME_BYTES} bytes and {MAX_NOTE_BYTES}"
    )]
    NoteTooLarge {
        /// The start of the name.
        name: String,
        /// Bytes of the name.
        name_size: u64,
        /// Bytes of the value.
        size: u64,
    },
    /// The operating system refused a call.
    #[error("{path}: {call} failed: {source}", path = path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The call, in words.
        call: &'static str,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// The read was not to wait, and would have to. What was handed out before stays handed out.
    #[error("what is to be read is not in memory, and the read was not to wait")]
    WouldWait,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// `size` bytes of one command to this entity are more than the `cap` that the store takes.
    #[must_use]
    pub fn too_large(entity: &EntityKey, size: usize, cap: usize) -> Self {
        let (kind, id) = (Arc::clone(&entity.kind), Arc::clone(&entity.id));
        Self::TooLarge { kind, id, size: size as u64, cap: cap as u64 }
    }

    /// The name of a note, or its value of `size` bytes, is longer than a store takes.
    #[must_use]
    pub fn note_too_large(name: &str, size: usize) -> Self {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        Self::NoteTooLarge { name: shown, name_size: name.len() as u64, size: size as u64 }
    }

    /// An operating system error with its place.
    #[must_use]
    pub fn io(path: impl Into<PathBuf>, call: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), call, source: Arc::new(source) }
    }
}
