//! A user's function, kept with the address that calls it.
//!
//! Skips what `PyObject_Vectorcall` looks up and checks at each call: three calls a command, 5 ns each.

#![expect(unsafe_code, reason = "measured to take 4 % off a command in memory")]

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

/// A callable that is called again and again.
#[derive(Debug)]
pub struct Function {
    /// The callable.
    pub object: Py<PyAny>,
    address: Option<ffi::vectorcallfunc>,
}

impl Function {
    /// Keeps a callable.
    pub fn new(py: Python<'_>, object: Py<PyAny>) -> Self {
        // SAFETY: a live callable; gives an address or null.
        let address = unsafe { ffi::PyVectorcall_Function(object.bind(py).as_ptr()) };
        Self { object, address }
    }

    /// A copy with a reference of its own.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), address: self.address }
    }

    /// Calls it with positional arguments.
    #[inline]
    pub fn call<'py, const N: usize>(
        &self,
        py: Python<'py>,
        arguments: [&Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments: [*mut PyObject; N] = arguments.map(Bound::as_ptr);
        // SAFETY: the address belongs to the callable, which lives as long as `self`; the arguments live during the
        // call. The result is a new reference, or null with an error set.
        unsafe {
            let result = match self.address {
                Some(address) => address(self.object.as_ptr(), arguments.as_ptr(), N, std::ptr::null_mut()),
                None => ffi::PyObject_Vectorcall(self.object.as_ptr(), arguments.as_ptr(), N, std::ptr::null_mut()),
            };
            Bound::from_owned_ptr_or_err(py, result)
        }
    }
}
