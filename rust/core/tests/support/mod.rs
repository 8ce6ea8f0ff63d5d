//! What the sweeps share: a reference to compare with, a program that appends and restarts, scripts for it, and a pool
//! with a watchdog.

pub(crate) mod aftermath;
pub(crate) mod history;
pub(crate) mod notes;
pub(crate) mod pool;
pub(crate) mod scenarios;
pub(crate) mod session;
pub(crate) mod settings;
