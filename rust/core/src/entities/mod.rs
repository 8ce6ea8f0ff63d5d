//! Live entities: where they belong, who may run, who waits, who leaves memory.

pub mod mailbox;
pub mod shard;
pub mod slot;
pub mod wheel;
