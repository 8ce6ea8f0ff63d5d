//! Calls that wait until a test lets them go on.

use super::Shared;
use super::faults::{Selector, Site};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Gates {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    closed: Vec<Closed>,
    next: u64,
}

#[derive(Debug)]
struct Closed {
    key: u64,
    selector: Selector,
    waiting: u64,
}

impl Gates {
    /// Returns once no gate is closed for the call.
    pub(super) fn pass(&self, site: &Site) {
        let mut inner = self.inner.lock();
        let mut counted = None;
        while let Some(gate) = inner.closed.iter_mut().find(|gate| gate.selector.chooses(site)) {
            if counted != Some(gate.key) {
                counted = Some(gate.key);
                gate.waiting += 1;
                self.changed.notify_all();
            }
            self.changed.wait(&mut inner);
        }
    }

    pub(super) fn open_all(&self) {
        self.inner.lock().closed.clear();
        self.changed.notify_all();
    }
}

/// A closed gate; dropping it opens it.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    key: u64,
}

impl Held {
    pub(super) fn new(shared: Arc<Shared>, selector: Selector) -> Self {
        let mut inner = shared.gates.inner.lock();
        inner.next += 1;
        let key = inner.next;
        inner.closed.push(Closed { key, selector, waiting: 0 });
        drop(inner);
        Self { shared, key }
    }

    /// Waits until so many calls stand at the gate, or at most for `limit`; whether they do.
    #[must_use]
    pub fn reached(&self, calls: u64, limit: Duration) -> bool {
        let there = |inner: &Inner| inner.closed.iter().any(|gate| gate.key == self.key && gate.waiting >= calls);
        let mut inner = self.shared.gates.inner.lock();
        self.shared.gates.changed.wait_while_for(&mut inner, |inner| !there(inner), limit);
        there(&inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.gates.inner.lock().closed.retain(|gate| gate.key != self.key);
        self.shared.gates.changed.notify_all();
    }
}
