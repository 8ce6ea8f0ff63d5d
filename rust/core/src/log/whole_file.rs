//! Small files that are written whole or not at all: manifest, checkpoint, sidecar.
//!
//! A frame is magic, format version, content, and a hash of everything before it. It is written beside its place, synced
//! and renamed, so a reader finds the old one, the new one, or (where the disk has rotted) one that it refuses.

use super::format::FORMAT_VERSION;
use crate::io::{Door, File, Mode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const PREFIX: usize = 12;
const HASH: usize = 8;
/// No frame is larger; a checkpoint that would be is not written, and a file that is, is no frame.
const LARGEST: u64 = 1 << 30;

/// What a writer keeps in memory before it is worth a call.
const SPILL: usize = 1 << 20;

/// Builds a frame beside its place.
pub struct FrameWriter<'a> {
    door: &'a dyn Door,
    path: &'a Path,
    beside: PathBuf,
    /// What is not written yet.
    bytes: Vec<u8>,
    /// The file, once something is written, and how much.
    file: Option<Arc<dyn File>>,
    written: u64,
    hash: Xxh3,
    spilled: io::Result<()>,
}

impl<'a> FrameWriter<'a> {
    /// An empty frame of the kind that `magic` names, to be put at `path`.
    #[must_use]
    pub fn new(door: &'a dyn Door, path: &'a Path, magic: [u8; 8]) -> Self {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".next");
        let beside = PathBuf::from(beside);
        let (bytes, hash) = (magic.to_vec(), Xxh3::new());
        let mut this = Self { door, path, beside, bytes, file: None, written: 0, hash, spilled: Ok(()) };
        this.bytes(&FORMAT_VERSION.to_le_bytes());
        this
    }

    /// Adds bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds a number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Adds a number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Adds a text of at most 255 bytes with its length.
    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        self.bytes(&[text.len() as u8]).bytes(text)
    }

    /// Writes what was added, where that is much, so that a large frame takes little memory. What goes wrong is told by
    /// [`replace`](Self::replace).
    pub fn spill(&mut self) {
        if self.bytes.len() >= SPILL && self.spilled.is_ok() {
            self.spilled = self.write();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let len = self.bytes.len() as u64;
        if self.written + len > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.file.is_none() {
            self.file = Some(self.door.open(&self.beside, Mode::Replace)?);
        }
        if let Some(file) = &self.file {
            file.write_at(&self.bytes, self.written)?;
        }
        self.hash.update(&self.bytes);
        self.written += len;
        self.bytes.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        std::mem::replace(&mut self.spilled, Ok(()))?;
        let mut hash = self.hash.clone();
        hash.update(&self.bytes);
        self.u64(hash.digest()).write()?;
        self.file.as_ref().map_or(Ok(()), |file| file.sync())
    }

    /// Writes the rest beside the frame's place, syncs it, puts it in its place and makes the name durable.
    ///
    /// # Errors
    /// What the door says; then either file may be there, whole.
    pub fn replace(mut self) -> io::Result<()> {
        if let Err(error) = self.finish() {
            if self.file.is_some() {
                let _ = self.door.unlink(&self.beside);
            }
            return Err(error);
        }
        self.door.rename(&self.beside, self.path)?;
        self.path.parent().map_or(Ok(()), |dir| self.door.sync_dir(dir))
    }
}

/// Reads a frame from front to back; a read past its end gives zeros and is told by [`finish`](Self::finish).
#[derive(Debug)]
pub struct FrameReader {
    bytes: Vec<u8>,
    at: usize,
    short: bool,
}

impl FrameReader {
    /// Reads the whole file at `path` and verifies its hash. The inner error says what is wrong with the content.
    ///
    /// # Errors
    /// What the door says.
    pub fn read(door: &dyn Door, path: &Path, magic: [u8; 8]) -> io::Result<Result<Self, &'static str>> {
        let file = door.open(path, Mode::Read)?;
        let size = file.size()?;
        if size < (PREFIX + HASH) as u64 {
            return Ok(Err("the file is cut short"));
        }
        if size > LARGEST {
            return Ok(Err("the file is larger than any of its kind"));
        }
        let size = usize::try_from(size).unwrap_or(0);
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0)?;
        let (content, hash) = bytes.split_at(size - HASH);
        if content.get(..8) != Some(&magic[..]) {
            return Ok(Err("the file is of another kind"));
        }
        if hash != xxh3_64(content).to_le_bytes() {
            return Ok(Err("the checksum of the file does not match"));
        }
        if content.get(8..PREFIX) != Some(&FORMAT_VERSION.to_le_bytes()[..]) {
            return Ok(Err("the file has a format version that this build does not read"));
        }
        bytes.truncate(size - HASH);
        Ok(Ok(Self { bytes, at: PREFIX, short: false }))
    }

    /// The next `len` bytes; fewer only where the frame ends before.
    pub fn take(&mut self, len: usize) -> &[u8] {
        let start = self.at.min(self.bytes.len());
        let end = start.saturating_add(len).min(self.bytes.len());
        self.short |= end - start < len;
        self.at = end;
        self.bytes.get(start..end).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap_or([0; N])
    }

    /// The next number.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// The next 16 bytes.
    pub fn id(&mut self) -> [u8; 16] {
        self.array()
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        let [len] = self.array();
        String::from_utf8_lossy(self.take(len as usize)).into_owned()
    }

    /// Whether more content follows.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.short && self.at < self.bytes.len()
    }

    /// Checks that the frame held exactly what was read from it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(&self) -> Result<(), &'static str> {
        if self.short || self.at != self.bytes.len() {
            return Err("the file does not hold what its kind says");
        }
        Ok(())
    }
}
