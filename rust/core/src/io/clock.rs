//! The time of an engine: the machine's, or one that is moved by hand.

use super::{Door, File, LockOutcome, Mode, PathKind, RealDoor};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a clock that is moved by hand shows at first: 2030-01-01 in UTC.
const BY_HAND_FROM: u64 = 1_893_456_000_000_000_000;

/// The time. Copies of one that is moved by hand move together.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Nanoseconds that it was moved by.
    by_hand: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// A clock that stands still until it is moved.
    #[must_use]
    pub fn by_hand() -> Self {
        Self { by_hand: Some(Arc::new(AtomicU64::new(0))) }
    }

    /// Whether it is moved by hand.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        self.by_hand.is_some()
    }

    /// Moves a clock that is moved by hand; the machine's moves by itself.
    pub fn advance(&self, nanos: u64) {
        if let Some(moved) = &self.by_hand {
            moved.fetch_add(nanos, Ordering::SeqCst);
        }
    }

    /// Nanoseconds that only grow; never 0.
    #[must_use]
    #[inline]
    pub fn monotonic_nanos(&self) -> u64 {
        match &self.by_hand {
            None => nanos_of(ClockId::Monotonic),
            Some(moved) => moved.load(Ordering::SeqCst).saturating_add(1),
        }
    }

    /// The same as it stood some milliseconds ago at most, in a fifth of the time.
    #[must_use]
    #[inline]
    pub fn monotonic_nanos_at_tick(&self) -> u64 {
        match &self.by_hand {
            None => nanos_of(ClockId::MonotonicCoarse),
            Some(_) => self.monotonic_nanos(),
        }
    }

    /// The time to count a wait of `nanos` from. A long one is counted from the cheaper clock.
    #[must_use]
    #[inline]
    pub fn now_for(&self, nanos: u64) -> u64 {
        const TICK: u64 = 10_000_000;
        if nanos < 100 * TICK || self.by_hand.is_some() {
            return self.monotonic_nanos();
        }
        self.monotonic_nanos_at_tick().saturating_add(TICK)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn wall_nanos(&self) -> u64 {
        match &self.by_hand {
            None => RealDoor.wall_nanos(),
            Some(moved) => BY_HAND_FROM.saturating_add(moved.load(Ordering::SeqCst)),
        }
    }

    /// The same as it stood some milliseconds ago at most.
    #[must_use]
    #[inline]
    pub fn wall_nanos_at_tick(&self) -> u64 {
        if self.is_by_hand() { self.wall_nanos() } else { RealDoor.wall_nanos_at_tick() }
    }

    /// The machine's files with this time.
    #[must_use]
    pub fn door(&self) -> Arc<dyn Door> {
        if self.is_by_hand() { Arc::new(TimedDoor(self.clone())) } else { Arc::new(RealDoor) }
    }
}

/// A millisecond of the machine's time, whatever clock an engine has: for work that must leave a thread to others.
#[derive(Debug)]
pub struct Slice {
    end: u64,
    looks: u8,
}

impl Slice {
    const NANOS: u64 = 1_000_000;
    /// How often it is asked for one look at the clock.
    const EVERY: u8 = 8;

    /// It begins now.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is no value but a moment")]
    pub fn new() -> Self {
        Self { end: nanos_of(ClockId::Monotonic).saturating_add(Self::NANOS), looks: 0 }
    }

    /// Whether it is over, for a caller that asks every few hundred nanoseconds.
    #[inline]
    pub fn is_over(&mut self) -> bool {
        self.looks = (self.looks + 1) % Self::EVERY;
        self.looks == 0 && self.is_over_now()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over_now(&self) -> bool {
        nanos_of(ClockId::Monotonic) >= self.end
    }
}

fn nanos_of(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The real door with another clock.
#[derive(Debug)]
struct TimedDoor(Clock);

impl Door for TimedDoor {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        RealDoor.open(path, mode)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        RealDoor.kind(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDoor.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDoor.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDoor.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDoor.unlink(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDoor.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        RealDoor.lock(path)
    }

    fn wall_nanos(&self) -> u64 {
        self.0.wall_nanos()
    }

    fn random(&self, buf: &mut [u8]) {
        RealDoor.random(buf);
    }

    fn pid(&self) -> u32 {
        RealDoor.pid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_by_hand_stands_still_until_it_is_moved() {
        let clock = Clock::by_hand();
        let copy = clock.clone();
        let before = (clock.monotonic_nanos(), clock.wall_nanos());
        assert_eq!((copy.monotonic_nanos(), copy.wall_nanos_at_tick()), before);
        clock.advance(5);
        assert_eq!((copy.monotonic_nanos_at_tick(), copy.door().wall_nanos()), (before.0 + 5, before.1 + 5));
    }

    #[test]
    fn the_machines_clock_moves_by_itself() {
        let clock = Clock::default();
        let before = clock.monotonic_nanos();
        clock.advance(u64::MAX / 2);
        assert!(clock.monotonic_nanos() - before < 3_600_000_000_000);
        assert!(clock.monotonic_nanos_at_tick() <= clock.monotonic_nanos());
    }
}
