//! Tells those who follow a journal that there is more.
//!
//! Followers that share a waker are told once, however many they are, and nobody is told who did not come up empty first.

use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Called from any thread, without arguments. It neither waits nor calls the journal.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct Bell {
    /// Whether somebody came up empty since it rang last.
    is_awaited: AtomicBool,
    /// Each waker once, with the number of its followers.
    wakers: RwLock<Vec<(Waker, usize)>>,
}

impl Bell {
    /// Says that somebody came up empty. Who looks once more afterwards misses nothing.
    pub(crate) fn expect(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    /// Calls the wakers where somebody came up empty. There is more by now.
    #[inline]
    pub(crate) fn ring(&self) {
        if self.is_awaited.load(Ordering::SeqCst) {
            self.ring_out();
        }
    }

    /// Calls the wakers.
    #[cold]
    pub(crate) fn ring_out(&self) {
        self.is_awaited.store(false, Ordering::SeqCst);
        for (wake, _) in self.wakers.read().iter() {
            wake();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("is_awaited", &self.is_awaited).finish_non_exhaustive()
    }
}

/// A waker among those of a bell, until [`leave`](Listener::leave).
pub(crate) struct Listener(Waker);

impl Listener {
    pub(crate) fn new(bell: &Bell, wake: Waker) -> Self {
        let mut wakers = bell.wakers.write();
        match wakers.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &wake)) {
            Some((_, followers)) => *followers += 1,
            None => wakers.push((Arc::clone(&wake), 1)),
        }
        Self(wake)
    }

    /// Calls this waker alone.
    pub(crate) fn wake(&self) {
        (self.0)();
    }

    pub(crate) fn leave(&self, bell: &Bell) {
        bell.wakers.write().retain_mut(|(known, followers)| {
            *followers -= usize::from(Arc::ptr_eq(known, &self.0));
            *followers > 0
        });
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
