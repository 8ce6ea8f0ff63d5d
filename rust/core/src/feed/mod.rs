//! Reading a store on and on, in order of position: what is there, then what comes.
//!
//! A [`Follower`] hands out [`Chunk`]s of events and states that its [`Filter`] lets through, byte for byte as they are stored, each
//! once, none left out, and nothing before it is durable. Positions are given at commit, so what stands behind a follower is
//! complete. How far it is behind is nobody else's matter: whoever writes waits for no follower.
//!
//! Following keeps no offset and knows no clock: who wants to go on later asks for what comes after a position.

mod bell;
mod chunk;
mod filter;
mod pool;

pub use bell::Waker;
pub use chunk::{Chunk, FeedEvent};
pub use filter::Filter;

pub(crate) use bell::{Bell, Listener};
pub(crate) use chunk::{Entry, Span};
pub(crate) use filter::Owner;
pub(crate) use pool::{Bytes, Pool};

use crate::error::Result;
use crate::journal::Wait;
use std::fmt::Debug;

/// One reader of a store, which goes on from where it stands. Dropping it ends what it has under way.
pub trait Follower: Debug + Send {
    /// What follows, as far as it is ready; `None` where nothing is. After `None` the waker given to
    /// [`follow`](crate::journal::Journal::follow) is called once there may be more.
    ///
    /// With [`Wait::Never`] no disk is waited for: what is in files is read in the background, ahead of what is taken. With
    /// [`Wait::AsLongAsItTakes`] `None` says that everything durable was handed out. A chunk may be empty: then everything up
    /// to its [`upto`](Chunk::upto) did not match.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Forked`, `Closed`. The next call tries again from the same place.
    fn next(&mut self, wait: Wait) -> Result<Option<Chunk>>;

    /// Everything up to this position was handed out or did not match.
    fn position(&self) -> u64;
}
