//! `EntityRef.send`, put into its type by hand: pyo3's own way in costs a command in memory 5 %, and 15 % where an
//! argument is given by name.

#![expect(unsafe_code, reason = "a method of the C API")]

use crate::entity_ref::{DEFAULT_TIMEOUT, EntityRef, Timeout};
use ego_answer::answer::Answer;
use ego_answer::fast::{attached, enter};
use ego_engine::dispatch::Patience;
use ego_engine::terms::Given;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

const DOC: &std::ffi::CStr = c"send($self, command, /, *, timeout=5.0, expected_revision=None, command_id=None, \
    metadata=None)\n--\n\n\
    Sends a command; the awaitable gives (state, revision). Accepted at the call, not at the await.";

/// What may be given by name.
const NAMES: [&str; 4] = ["timeout", "expected_revision", "command_id", "metadata"];

/// The same, interned: the very objects that a call passes which spells them out.
static INTERNED: [AtomicPtr<PyObject>; 4] = [const { AtomicPtr::new(null_mut()) }; 4];

type Arguments = *const *mut PyObject;

unsafe extern "C" fn send(
    slf: *mut PyObject,
    arguments: Arguments,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interpreter calls a method descriptor of the type with an object of it, a vector of `count` arguments
    // and the named ones behind them, and holds the lock. What lets go of objects in there enters pyo3 first.
    let sent = catch_unwind(AssertUnwindSafe(|| unsafe {
        let py = Python::assume_attached();
        let slf = Borrowed::from_ptr(py, slf).cast_unchecked::<EntityRef>().get();
        if count != 1 {
            return attached(|_| Err(refusal()));
        }
        let command = Borrowed::from_ptr(py, *arguments);
        if names.is_null() {
            return slf.with_place(py, true, |at| at.send(&command, DEFAULT_TIMEOUT.0, None));
        }
        named(py, slf, &command, arguments.add(1), names)
    }));
    match sent {
        Ok(Ok(answer)) => answer.into_any().into_ptr(),
        Ok(Err(failure)) => enter(|_| Err(failure)),
        Err(panic) => enter(|_| resume_unwind(panic)),
    }
}

fn refusal() -> PyErr {
    PyTypeError::new_err(format!("send takes one command, and by name {}=", NAMES.join("=, ")))
}

/// Sends with what is given by name.
///
/// # Safety
/// `names` are the names of a call, and `values` its arguments of these names.
unsafe fn named<'py>(
    py: Python<'py>,
    slf: &EntityRef,
    command: &Bound<'py, PyAny>,
    values: Arguments,
    names: *mut PyObject,
) -> PyResult<Answer> {
    let mut given = [None; NAMES.len()];
    // SAFETY: the caller's promise: a tuple of texts, and as many values. Both live during the call.
    unsafe {
        let none = ffi::Py_None();
        for index in 0..ffi::PyTuple_GET_SIZE(names) {
            let place = place(ffi::PyTuple_GET_ITEM(names, index));
            let (Some(slot), value) = (place.and_then(|place| given.get_mut(place)), *values.offset(index)) else {
                return attached(|_| Err(refusal()));
            };
            *slot = (value != none || place == Some(0)).then(|| Borrowed::from_ptr(py, value));
        }
    }
    let [timeout, expected_revision, command_id, metadata] = &given;
    let timeout = match timeout {
        None => DEFAULT_TIMEOUT,
        Some(timeout) => patience(timeout)?,
    };
    let given = Given {
        expected_revision: expected_revision.as_deref(),
        command_id: command_id.as_deref(),
        metadata: metadata.as_deref(),
    };
    let given = (!given.is_empty()).then_some(&given);
    slf.with_place(py, true, |at| at.send(command, timeout.0, given))
}

/// Which of the names it is, mostly known by its address.
///
/// # Safety
/// `name` is a text.
unsafe fn place(name: *mut PyObject) -> Option<usize> {
    let known = INTERNED.iter().position(|held| held.load(Ordering::Relaxed) == name);
    // SAFETY: the caller's promise.
    known.or_else(|| unsafe {
        attached(|py| {
            let name = Borrowed::from_ptr(py, name).cast::<PyString>().ok()?.to_str().ok()?.to_owned();
            NAMES.iter().position(|held| **held == *name)
        })
    })
}

fn patience(given: &Bound<'_, PyAny>) -> PyResult<Timeout> {
    if given.is_none() {
        return Ok(Timeout(Patience::ForEver));
    }
    // SAFETY: a live object, and a float where it is read as one.
    let seconds = unsafe {
        if ffi::PyFloat_CheckExact(given.as_ptr()) == 0 { 0.0 } else { ffi::PyFloat_AS_DOUBLE(given.as_ptr()) }
    };
    if seconds > 0.0 { Ok(Timeout::of(seconds)) } else { attached(|_| Timeout::extract(given.as_borrowed())) }
}

/// Puts `send` into the type.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    for (held, name) in INTERNED.iter().zip(NAMES) {
        held.store(PyString::intern(py, name).into_ptr(), Ordering::Relaxed);
    }
    let method = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: c"send".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: send },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: DOC.as_ptr(),
    }));
    let kind = py.get_type::<EntityRef>();
    // SAFETY: the definition is never freed; gives a new descriptor or null with an error set.
    let descriptor = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(kind.as_type_ptr(), method))? };
    kind.setattr("send", descriptor)
}
