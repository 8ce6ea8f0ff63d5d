//! The ego engine without Python.
//!
//! What it promises: a unit of events is stored whole or not at all, in the order in which it was accepted, and is
//! shown to nobody before a completed sync covers it. What it does not do: run a user's handler, know what a payload
//! means, or start a runtime. Every file, clock and random number is reached through [`io`].

pub mod entities;
pub mod error;
pub mod feed;
pub mod history;
pub mod io;
pub mod journal;
pub mod loader;
pub mod log;
pub mod memory;
pub mod metadata;
pub mod scripted;

pub use error::StoreError;
