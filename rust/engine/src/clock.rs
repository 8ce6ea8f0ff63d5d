//! Times as Python has them, and a clock that a test moves by hand.

use ego_core::io::{Clock, Door};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyTzInfo};
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

/// A time, given in nanoseconds since the Unix epoch, in UTC.
///
/// # Errors
/// Those of the interpreter.
pub fn utc(py: Python<'_>, nanos: u64) -> PyResult<Bound<'_, PyDateTime>> {
    let utc = PyTzInfo::utc(py)?.to_owned();
    #[expect(clippy::cast_precision_loss, reason = "whole microseconds of this century fit")]
    PyDateTime::from_timestamp(py, (nanos / 1_000) as f64 / 1e6, Some(&utc))
}

/// Nanoseconds since the Unix epoch of a time with a time zone.
///
/// # Errors
/// `TypeError`, `ValueError`: it has none, or lies before the epoch.
pub fn nanos_of(time: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = time.py();
    let is_aware = time.is_instance_of::<PyDateTime>() && !time.call_method0("utcoffset")?.is_none();
    if !is_aware {
        let shown = time.repr()?;
        return Err(PyTypeError::new_err(format!("a time is a datetime with a time zone, not {shown}")));
    }
    let since = time.sub(utc(py, 0)?)?;
    let part = |name: &str| since.getattr(name)?.extract::<i64>();
    let (days, seconds, micros) = (part("days")?, part("seconds")?, part("microseconds")?);
    let nanos = ((i128::from(days) * 86_400 + i128::from(seconds)) * 1_000_000 + i128::from(micros)) * 1_000;
    u64::try_from(nanos).map_err(|_| PyValueError::new_err(format!("a time lies after 1970 began, not at {time}")))
}
