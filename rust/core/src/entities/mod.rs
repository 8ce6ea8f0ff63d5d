//! Live entities: where they belong, who may run, who waits.

pub mod mailbox;
pub mod shard;
pub mod slot;
