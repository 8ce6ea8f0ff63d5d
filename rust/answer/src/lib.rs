//! Answers that Python code awaits, and the event loops and threads they are shown on.
//!
//! Nothing here knows what an engine, an entity or a journal is: an [`answer`] is made, waited for, settled once, and
//! lets go of what it was [linked](answer::Link) to.

pub mod answer;
pub mod call;
pub mod cell;
pub mod error;
pub mod fast;
pub mod future;
pub mod line;
pub mod wake;
