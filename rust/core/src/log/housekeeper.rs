//! The housekeeper: one thread that fills space ahead and does what can wait. It never touches Python.
//!
//! Nothing that it writes is needed for correctness; what fails is tried again at the next occasion, except for filling
//! space, whose failure the committer is told. Damage that it meets in synced bytes poisons the log.

use super::Shared;
use super::checkpoint;
use super::segment;
use super::sidecar;
use super::space::Job;
use crate::error::{Result, StoreError};
use crate::io::Mode;

/// Works until it is told to stop.
pub(super) fn run(shared: &Shared) {
    let (door, store) = (&*shared.door, shared.path.as_path());
    loop {
        match shared.space.next_job() {
            Job::Fill(to) => shared.space.fill(store, to),
            Job::Prepare(id) => shared.space.prepare(door, store, id),
            Job::Sealed(id) => {
                // Derived files and spare zeros: the log opens without the one and with the other.
                let _ = trim(shared, id);
                if let Err(damage @ StoreError::Corrupt { .. }) = write_sidecar(shared, id) {
                    // Synced bytes are not what was written: nothing is acknowledged on such a disk.
                    shared.poison(&damage.to_string());
                }
                let _ = write_manifest(shared);
            }
            Job::Checkpoint => {
                let _ = write_checkpoint(shared);
            }
            Job::Stop => return,
        }
    }
}

/// Gives back the zeros behind the last byte of a sealed segment.
fn trim(shared: &Shared, id: u32) -> Result<()> {
    let Some(seal) = shared.chain.read().get(id).and_then(|s| s.seal) else { return Ok(()) };
    let (file, _) = segment::open(&*shared.door, &shared.path, id, Mode::Write)?;
    let io = |e| StoreError::io(segment::segment_path(&shared.path, id), "trimming a segment", e);
    let size = file.size().map_err(io)?;
    let end = segment::last_written(&*file, seal.end, size).map_err(io)?;
    if end < size { file.set_len(end).map_err(io) } else { Ok(()) }
}

fn write_sidecar(shared: &Shared, id: u32) -> Result<()> {
    let Some(segment) = shared.chain.read().get(id).copied() else { return Ok(()) };
    sidecar::write(&*shared.door, &shared.path, &segment)
}

fn write_manifest(shared: &Shared) -> Result<()> {
    let manifest = shared.chain.read().manifest(shared.store, shared.shards);
    manifest.write(&*shared.door, &shared.path)
}

/// Writes a checkpoint of what is durable now.
pub(super) fn write_checkpoint(shared: &Shared) -> std::io::Result<()> {
    // The reach first: heads may be newer than it, never older.
    let reach = shared.reach();
    checkpoint::write(&*shared.door, &shared.path, shared.store, &reach, &shared.heads)
}
