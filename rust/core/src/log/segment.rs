//! Segment files: their names, how one is made and how one is opened.
//!
//! A segment under its real name always has a header. One that is being prepared carries the suffix `.next`; nothing in
//! it counts, and it may be removed at any time.

use super::format::{HEADER_BLOCK, SEGMENT_HEADER, SegmentHeader};
use crate::error::{Result, StoreError};
use crate::io::{Door, File, Mode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Zeros are written in pieces of this many bytes.
const ZEROS: usize = 256 * 1024;

/// The file of segment `id`.
#[must_use]
pub fn segment_path(store: &Path, id: u32) -> PathBuf {
    store.join(format!("{id:08}.seg"))
}

/// The file in which segment `id` is prepared.
#[must_use]
pub fn next_path(store: &Path, id: u32) -> PathBuf {
    store.join(format!("{id:08}.seg.next"))
}

/// The id of the segment whose file has this name, if it is one.
#[must_use]
pub fn segment_id(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok()
}

/// Whether the file is a segment that was being prepared.
#[must_use]
pub fn is_prepared(path: &Path) -> bool {
    is_leftover(path) && segment_id(&path.with_extension("")).is_some()
}

/// Whether the file is a leftover of ours that counts for nothing.
#[must_use]
pub fn is_leftover(path: &Path) -> bool {
    let whole = path.with_extension("");
    let ours = whole.ends_with("MANIFEST") || whole.ends_with("checkpoint") || is_numbered(&whole);
    ours && path.extension().is_some_and(|extension| extension == "next")
}

fn is_numbered(path: &Path) -> bool {
    let digits = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<u32>().is_ok());
    digits && path.extension().is_some_and(|extension| extension == "seg" || extension == "idx")
}

/// Writes zeros from `from` to `to` and makes them durable, so that later commits overwrite bytes that exist.
///
/// # Errors
/// What the door says; `StorageFull` where the disk is.
pub fn fill(file: &dyn File, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0u8; ZEROS];
    let mut at = from;
    while at < to {
        let piece = usize::try_from(to - at).unwrap_or(ZEROS).min(ZEROS);
        file.write_at(zeros.get(..piece).unwrap_or_default(), at)?;
        at += piece as u64;
    }
    file.datasync()
}

/// Makes the file of a segment to come, zero-filled up to `filled`.
///
/// # Errors
/// `Io`, `Full`.
pub fn prepare(door: &dyn Door, store: &Path, id: u32, filled: u64) -> Result<Arc<dyn File>> {
    let path = next_path(store, id);
    let file = door.open(&path, Mode::Replace).map_err(|e| space_or_io(store, &path, "creating a segment", e))?;
    match fill(&*file, 0, filled).and_then(|()| file.sync()) {
        Ok(()) => Ok(file),
        Err(error) => {
            // What it took goes back, so that a full disk does not stay fuller than it was.
            let _ = door.unlink(&path);
            Err(space_or_io(store, &path, "filling a segment", error))
        }
    }
}

/// Gives a prepared segment its header and its name; durable when this returns.
///
/// # Errors
/// `Io`.
pub fn start(door: &dyn Door, store: &Path, file: &dyn File, header: &SegmentHeader) -> Result<()> {
    let (from, to) = (next_path(store, header.id), segment_path(store, header.id));
    write_header(file, header).map_err(|e| StoreError::io(&from, "writing a segment header", e))?;
    door.rename(&from, &to).map_err(|e| StoreError::io(&to, "naming a segment", e))?;
    door.sync_dir(store).map_err(|e| StoreError::io(store, "syncing the directory", e))
}

/// Writes both copies of a header and syncs them.
pub fn write_header(file: &dyn File, header: &SegmentHeader) -> std::io::Result<()> {
    let bytes = header.encode();
    file.write_at(&bytes, 0)?;
    file.write_at(&bytes, HEADER_BLOCK)?;
    file.datasync()
}

/// Opens a segment and reads its header from whichever copy is whole.
///
/// # Errors
/// `Io`; `Corrupt` where neither copy can be read, or where it is another segment's or another store's.
pub fn open(door: &dyn Door, store: &Path, id: u32, mode: Mode) -> Result<(Arc<dyn File>, SegmentHeader)> {
    let path = segment_path(store, id);
    let file = door.open(&path, mode).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            StoreError::Corrupt { path: path.clone(), offset: 0, detail: "the segment is missing".to_owned() }
        }
        _ => StoreError::io(&path, "opening a segment", e),
    })?;
    let size = file.size().map_err(|e| StoreError::io(&path, "reading the size of a segment", e))?;
    let mut reason = "the segment is shorter than its header";
    for at in [0, HEADER_BLOCK] {
        if size < at + SEGMENT_HEADER as u64 {
            break;
        }
        let mut bytes = [0u8; SEGMENT_HEADER];
        file.read_at(&mut bytes, at).map_err(|e| StoreError::io(&path, "reading a segment header", e))?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.id == id => return Ok((file, header)),
            Ok(_) => reason = "the header is that of another segment",
            Err(malformed) => reason = malformed.0,
        }
    }
    Err(StoreError::Corrupt { path, offset: 0, detail: reason.to_owned() })
}

/// Where the last byte at or after `from` that is not zero ends; `from` where there is none.
///
/// # Errors
/// What the door says.
pub fn last_written(file: &dyn File, from: u64, size: u64) -> std::io::Result<u64> {
    let mut last = from;
    let mut at = from;
    let mut buf = vec![0; ZEROS];
    while at < size {
        let piece = usize::try_from(size - at).unwrap_or(ZEROS).min(ZEROS);
        let piece = buf.get_mut(..piece).unwrap_or_default();
        file.read_at(piece, at)?;
        if let Some(written) = piece.iter().rposition(|&byte| byte != 0) {
            last = at + written as u64 + 1;
        }
        at += piece.len() as u64;
    }
    Ok(last)
}

/// A failed call as `Full` where the disk is full, else as `Io`.
#[must_use]
pub fn space_or_io(store: &Path, path: &Path, call: &'static str, error: std::io::Error) -> StoreError {
    match error.kind() {
        // A limit on file sizes is met the same way: nothing was written, and it can be lifted.
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
            StoreError::Full { path: store.to_path_buf() }
        }
        _ => StoreError::io(path, call, error),
    }
}
