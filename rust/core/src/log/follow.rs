//! Follows a log: the ring where it reaches back far enough, else the files, read in the background.

use super::Shared;
use super::ahead::Reading;
use super::format::{BATCH_HEADER, pick};
use super::ring::{Found, Recent};
use super::segment;
use super::walk::{Standing, Walk};
use crate::error::{Result, StoreError};
use crate::feed::{Chunk, Filter, Follower, Listener, Waker};
use crate::journal::Wait;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct LogFollower {
    shared: Arc<Shared>,
    reading: Arc<Reading>,
    position: u64,
    /// Where the files go on behind the position, where the ring gave what is before.
    standing: Option<Standing>,
    /// Whether the files were asked for more than was taken.
    is_behind: bool,
}

impl LogFollower {
    pub(super) fn new(shared: &Arc<Shared>, after: u64, filter: Filter, wake: Waker) -> Self {
        let listener = Listener::new(&shared.bell, wake);
        shared.ring.join(|| shared.reach.lock().position);
        let standing = {
            let reach = shared.reach.lock();
            let end = Standing { segment: reach.segment, point: reach.point };
            (after >= reach.position).then_some(end)
        };
        let reading = Reading::new(Walk::after(after, standing), filter, listener);
        Self { shared: Arc::clone(shared), reading, position: after, standing: None, is_behind: true }
    }

    fn recent(&mut self, recent: &Recent) -> Result<Chunk> {
        let body = recent.bytes.get(BATCH_HEADER..).unwrap_or_default();
        let mut entries = Vec::new();
        pick(body, BATCH_HEADER, self.reading.filter(), self.position, &mut entries).map_err(|malformed| {
            let Standing { segment, point } = recent.standing;
            let path = segment::segment_path(&self.shared.path, segment);
            StoreError::Corrupt { path, offset: point.offset, detail: malformed.0.to_owned() }
        })?;
        self.standing = Some(recent.standing);
        if entries.is_empty() {
            return Ok(Chunk::nothing(recent.upto));
        }
        Ok(Chunk::new(Arc::clone(&recent.bytes), entries, recent.upto))
    }

    fn find(&mut self, wait: Wait) -> Result<Option<Chunk>> {
        loop {
            if self.is_behind {
                if let Some(standing) = self.standing.take() {
                    self.reading.go_to(self.position, standing);
                }
                let read = match wait {
                    Wait::Never => self.reading.take(&self.shared)?,
                    Wait::AsLongAsItTakes if self.shared.ring.reaches(self.position) => None,
                    Wait::AsLongAsItTakes => self.reading.wait(&self.shared)?,
                };
                if read.is_some() {
                    return Ok(read);
                }
                if !self.shared.ring.reaches(self.position) {
                    return Ok(None);
                }
                self.is_behind = false;
            }
            match self.shared.ring.after(self.position) {
                Found::Batch(recent) => return self.recent(&recent).map(Some),
                Found::Behind => self.is_behind = true,
                Found::End => return Ok(None),
            }
        }
    }
}

impl Follower for LogFollower {
    fn next(&mut self, wait: Wait) -> Result<Option<Chunk>> {
        self.shared.check_open()?;
        let mut found = self.find(wait)?;
        if found.is_none() {
            // What comes between the look and this is seen by the second look; what comes later rings.
            self.shared.bell.expect();
            self.shared.check_open()?;
            found = self.find(wait)?;
        }
        if let Some(chunk) = &found {
            self.position = self.position.max(chunk.upto());
        }
        Ok(found)
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for LogFollower {
    fn drop(&mut self) {
        // In a forked child a thread of the parent may hold any of these for ever.
        if self.shared.check_process().is_ok() {
            self.shared.ring.leave();
            self.reading.listener().leave(&self.shared.bell);
            self.reading.end();
        }
    }
}
