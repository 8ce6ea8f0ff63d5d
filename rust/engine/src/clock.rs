//! A clock that a test moves by hand.

use ego_core::io::{Clock, Door};
use pyo3::prelude::*;
use std::sync::Arc;

/// What the test kit's clock is made of.
#[pyclass(frozen, name = "Clock", module = "ego._native")]
pub struct HandClock(pub Clock);

impl HandClock {
    /// The machine's files, with the time of a clock or of the machine.
    pub fn door(clock: Option<&Self>) -> Arc<dyn Door> {
        clock.map_or_else(Clock::default, |clock| clock.0.clone()).door()
    }
}

#[pymethods]
impl HandClock {
    #[new]
    fn new() -> Self {
        Self(Clock::by_hand())
    }

    /// Moves it by so many nanoseconds.
    fn advance(&self, nanos: u64) {
        self.0.advance(nanos);
    }

    /// Nanoseconds since the Unix epoch.
    fn wall_nanos(&self) -> u64 {
        self.0.wall_nanos()
    }
}
