//! The manifest: which segments make up the store, and where the sealed ones end.
//!
//! It may lag behind a roll, since a segment's header names its predecessor; it never lags behind a recovery, which is
//! one swap of this file.

use super::format::SegmentHeader;
use super::whole_file::{FrameReader, FrameWriter};
use crate::error::{Result, StoreError};
use crate::io::{Door, PathKind};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"EGOMAN\0\0";

/// One segment of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its header.
    pub header: SegmentHeader,
    /// Where its last batch ends and that batch's hash, once no batch will be added to it.
    pub seal: Option<Seal>,
}

/// The end of a segment that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Where its last batch ends.
    pub end: u64,
    /// Hash of its last batch, or of its predecessor's where it has none.
    pub hash: u64,
}

/// The content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The store's id.
    pub store: [u8; 16],
    /// Shards of the store.
    pub shards: u16,
    /// Id, salt and seal of every segment, in order of id; all but the last are sealed.
    pub segments: Vec<Listed>,
}

/// A segment as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The segment's id.
    pub id: u32,
    /// The segment's salt, which ties the entry to one file.
    pub salt: u64,
    /// Its end, where it is complete.
    pub seal: Option<Seal>,
}

impl Manifest {
    /// Where the manifest of a store is.
    #[must_use]
    pub fn path(store: &Path) -> PathBuf {
        store.join("MANIFEST")
    }

    /// Reads the manifest of a store; `None` where there is none.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where it cannot be trusted.
    pub fn read(door: &dyn Door, store: &Path) -> Result<Option<Self>> {
        let path = Self::path(store);
        let io = |e| StoreError::io(&path, "reading the manifest", e);
        if door.kind(&path).map_err(io)? == PathKind::Missing {
            return Ok(None);
        }
        let corrupt = |detail: &str| StoreError::Corrupt { path: path.clone(), offset: 0, detail: detail.to_owned() };
        let mut frame = FrameReader::read(door, &path, MAGIC).map_err(io)?.map_err(corrupt)?;
        let store_id = frame.id();
        let shards = u16::try_from(frame.u32()).unwrap_or(0);
        let mut segments = Vec::new();
        while frame.has_more() {
            let (id, sealed, salt) = (frame.u32(), frame.u32(), frame.u64());
            let seal = Seal { end: frame.u64(), hash: frame.u64() };
            segments.push(Listed { id, salt, seal: (sealed == 1).then_some(seal) });
        }
        frame.finish().map_err(corrupt)?;
        let in_order = segments.iter().zip(1u32..).all(|(listed, id)| listed.id == id);
        let all_sealed = segments.iter().rev().skip(1).all(|listed| listed.seal.is_some());
        if segments.is_empty() || !in_order || !all_sealed || shards == 0 {
            return Err(corrupt("the list of segments is impossible"));
        }
        Ok(Some(Self { store: store_id, shards, segments }))
    }

    /// Puts this manifest in the place of the one that is there.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, door: &dyn Door, store: &Path) -> Result<()> {
        let path = Self::path(store);
        let mut frame = FrameWriter::new(door, &path, MAGIC);
        frame.bytes(&self.store).u32(u32::from(self.shards));
        for listed in &self.segments {
            let seal = listed.seal.unwrap_or(Seal { end: 0, hash: 0 });
            frame.u32(listed.id).u32(u32::from(listed.seal.is_some())).u64(listed.salt).u64(seal.end).u64(seal.hash);
        }
        frame.replace().map_err(|e| super::segment::space_or_io(store, &path, "writing the manifest", e))
    }
}
