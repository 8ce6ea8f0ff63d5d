//! Interior mutability under the interpreter lock.
//!
//! Whatever an engine keeps is reached by one thread at a time, the one that holds the lock, so a mutex would only
//! cost. A borrow never spans a call into Python.

use pyo3::Python;
use std::cell::{Cell, Ref, RefCell, RefMut};

#[cfg(Py_GIL_DISABLED)]
compile_error!("ego is built for interpreters with a global lock");

/// A value that the holder of the interpreter lock may change.
#[derive(Debug, Default)]
pub struct GilCell<T>(RefCell<T>);

// SAFETY: every access takes a `Python` token or happens in `tp_traverse`, both of which prove that this thread holds
// the one interpreter lock, so no two threads reach the cell at a time.
#[expect(unsafe_code, reason = "a mutex per cell costs 10 ns on the way of a command")]
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    /// A cell with a value.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Looks at the value.
    #[inline]
    pub fn borrow<'a>(&'a self, _py: Python<'_>) -> Ref<'a, T> {
        self.0.borrow()
    }

    /// Changes the value.
    #[inline]
    pub fn borrow_mut<'a>(&'a self, _py: Python<'_>) -> RefMut<'a, T> {
        self.0.borrow_mut()
    }

    /// Changes the value, unless somebody looks at it further up the stack.
    pub fn try_borrow_mut<'a>(&'a self, _py: Python<'_>) -> Option<RefMut<'a, T>> {
        self.0.try_borrow_mut().ok()
    }

    /// For `tp_traverse` alone. What is borrowed just then is skipped, which keeps it alive.
    pub fn in_traverse(&self) -> Option<Ref<'_, T>> {
        self.0.try_borrow().ok()
    }
}

/// A small value that the holder of the interpreter lock may change.
#[derive(Debug, Default)]
pub struct GilValue<T: Copy>(Cell<T>);

// SAFETY: as for `GilCell`.
#[expect(unsafe_code, reason = "as for `GilCell`")]
unsafe impl<T: Copy + Send> Sync for GilValue<T> {}

impl<T: Copy> GilValue<T> {
    /// A cell with a value.
    #[inline]
    pub fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// The value.
    #[inline]
    pub fn get(&self, _py: Python<'_>) -> T {
        self.0.get()
    }

    /// Another value.
    #[inline]
    pub fn set(&self, _py: Python<'_>, value: T) {
        self.0.set(value);
    }
}

impl GilValue<u64> {
    /// Adds, around the end.
    #[inline]
    pub fn add(&self, py: Python<'_>, n: u64) {
        self.set(py, self.get(py).wrapping_add(n));
    }

    /// Subtracts, down to 0.
    pub fn sub(&self, py: Python<'_>, n: u64) {
        self.set(py, self.get(py).saturating_sub(n));
    }
}
