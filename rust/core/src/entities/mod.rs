//! Live entities: where they belong, who may run, who waits, who leaves memory.

pub mod commands;
pub mod mailbox;
pub mod residency;
pub mod residents;
pub mod shard;
pub mod sketch;
pub mod slot;
pub mod waits;
pub mod wheel;
