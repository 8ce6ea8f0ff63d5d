//! The bytes that a decoder is given, in an object that is used again.
//!
//! Making a `bytes` and letting go of it takes as long as a tenth of decoding a small event. Nobody but the decoder sees
//! this one; a decoder that keeps it keeps it for good, and the next payload gets another.

#![expect(unsafe_code, reason = "measured to take 5 % off a replay")]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Bytes that the first object has room for.
const ROOM: usize = 256;

/// A `bytes` with room for the next payload.
#[derive(Default)]
pub struct Payload<'py> {
    held: Option<Bound<'py, PyBytes>>,
    room: usize,
}

impl<'py> Payload<'py> {
    /// A `bytes` of that content, to be seen by one decoder.
    #[inline]
    pub fn of(&mut self, py: Python<'py>, content: &[u8]) -> &Bound<'py, PyBytes> {
        // SAFETY: a live object.
        let is_ours = |held: &Bound<'_, PyBytes>| unsafe { ffi::Py_REFCNT(held.as_ptr()) == 1 };
        let free = self.held.take_if(|held| content.len() <= self.room && is_ours(held));
        let held = match free {
            Some(held) => held,
            None => {
                self.room = content.len().max(ROOM);
                PyBytes::new(py, &vec![0; self.room])
            }
        };
        // SAFETY: the only reference to it is here, so nobody sees it change; it was made with `room` bytes and one more
        // for the end, and `content` is no longer than that. Its hash is forgotten with what it was the hash of.
        unsafe {
            let raw = held.as_ptr().cast::<ffi::PyBytesObject>();
            let start = (&raw mut (*raw).ob_sval).cast::<u8>();
            start.copy_from_nonoverlapping(content.as_ptr(), content.len());
            start.add(content.len()).write(0);
            #[cfg_attr(Py_3_11, expect(deprecated, reason = "there as long as the field is"))]
            {
                (*raw).ob_shash = -1;
            }
            (*raw).ob_base.ob_size = content.len().cast_signed();
        }
        self.held.insert(held)
    }
}
