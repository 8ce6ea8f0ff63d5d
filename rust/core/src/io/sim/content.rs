//! The bytes of one simulated file, in shared pages: copying a whole disk copies pointers.

use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Bytes in a page of the cache, and in a block of the disk.
pub(super) const PAGE: usize = 4096;

static ZEROS: [u8; PAGE] = [0; PAGE];

#[derive(Debug, Clone)]
enum Page {
    /// No block behind it; reads as zeros.
    Hole,
    /// A block full of zeros.
    Zeros,
    /// A block with something in it.
    Bytes(Arc<[u8; PAGE]>),
}

impl Page {
    fn put(&mut self, within: usize, bytes: &[u8]) {
        let zeros = ZEROS.starts_with(bytes);
        if zeros && (bytes.len() == PAGE || !matches!(self, Self::Bytes(_))) {
            *self = Self::Zeros;
            return;
        }
        if !matches!(self, Self::Bytes(_)) {
            *self = Self::Bytes(Arc::new([0; PAGE]));
        }
        if let Self::Bytes(page) = self
            && let Some(place) = Arc::make_mut(page).get_mut(within..within + bytes.len())
        {
            place.copy_from_slice(bytes);
        }
    }

    fn take(&self, within: usize, buf: &mut [u8]) {
        match self {
            Self::Bytes(page) => {
                if let Some(bytes) = page.get(within..within + buf.len()) {
                    buf.copy_from_slice(bytes);
                }
            }
            Self::Hole | Self::Zeros => buf.fill(0),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: Vec<Page>,
    len: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Cuts, or extends by a hole. What was cut off reads as zeros when the file grows again.
    pub(super) fn set_len(&mut self, len: u64) {
        self.pages.resize(len.div_ceil(PAGE as u64) as usize, Page::Hole);
        let tail = (len % PAGE as u64) as usize;
        if len < self.len
            && tail > 0
            && let Some(page @ Page::Bytes(_)) = self.pages.last_mut()
        {
            page.put(tail, ZEROS.split_at(PAGE - tail).0);
        }
        self.len = len;
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE - within));
            if let Some(page) = self.pages.get_mut((at / PAGE as u64) as usize) {
                page.put(within, now);
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    /// Fills `buf` as far as the file goes; says how many bytes that were.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let have = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let (mut rest, mut at) = (buf.split_at_mut(have).0, offset);
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (now, later) = rest.split_at_mut((PAGE - within).min(rest.len()));
            if let Some(page) = self.pages.get((at / PAGE as u64) as usize) {
                page.take(within, now);
            }
            at += now.len() as u64;
            rest = later;
        }
        have
    }

    /// Blocks that the file takes on the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.pages.iter().filter(|page| !matches!(page, Page::Hole)).count() as u64
    }

    /// Whether writing to page `index` needs no new block.
    pub(super) fn has_block(&self, index: u64) -> bool {
        self.pages.get(index as usize).is_some_and(|page| !matches!(page, Page::Hole))
    }

    pub(super) fn hash_into(&self, hash: &mut Xxh3) {
        hash.update(&self.len.to_le_bytes());
        for (index, page) in self.pages.iter().enumerate() {
            if let Page::Bytes(bytes) = page {
                hash.update(&index.to_le_bytes());
                hash.update(bytes.as_slice());
            }
        }
    }
}
