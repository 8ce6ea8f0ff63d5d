//! Runs the commands of entities that are written in Python.
//!
//! A command gets its turn in [`dispatch`], is decided in [`turn`], handed to the journal, and shown by [`pending`]
//! through its answer when the journal says so. What of this needs no Python is in `ego_core`, what knows nothing of
//! entities in `ego_answer`, and what Python calls in the seam.

#![expect(missing_docs, reason = "an inner crate: what is public is so for the seam alone")]

pub mod clock;
pub mod context;
pub mod cursor;
pub mod dispatch;
pub mod engine;
mod entity;
pub mod envelope;
pub mod error;
pub mod feed;
mod held;
pub mod kind;
mod logging;
pub mod notes;
mod payload;
mod pending;
mod repeated;
mod replay;
mod residents;
pub mod run;
mod state;
mod task;
pub mod terms;
mod turn;
mod unreadable;

pub use entity::Entity;
