//! The way of `await`, made by hand: answers are made, awaited and let go of without pyo3's way into a slot.
//!
//! Measured on CPython 3.11: a command in memory takes 1.3 times as long without it.

#![expect(unsafe_code, reason = "slots of a type, and memory that is used again")]

use crate::answer::Phase;
use crate::future::{Future, awaited_badly};
use pyo3::PyTypeInfo;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

type Ptr = *mut PyObject;

/// How pyo3 lays a frozen class out; checked by [`init`].
#[repr(C)]
struct Raw {
    head: PyObject,
    future: Future,
}

/// What the type was made with.
struct Slots {
    kind: NonNull<ffi::PyTypeObject>,
    dealloc: ffi::destructor,
}

// SAFETY: a type is never freed, and functions are the same everywhere.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

static SLOTS: PyOnceLock<Slots> = PyOnceLock::new();

/// Dead answers, of which the memory is used again: the last one, and in each the one before.
static SPARE: AtomicPtr<Spare> = AtomicPtr::new(null_mut());
static SPARES: AtomicUsize = AtomicUsize::new(0);
const MAX_SPARES: usize = 64;

#[repr(C)]
struct Spare {
    head: PyObject,
    before: *mut Spare,
}

/// Puts the slots of this module into the type of answers.
pub fn init(py: Python<'_>) -> PyResult<()> {
    let probe = Bound::new(py, Future::new(None, None, Phase::Cancelled, 0))?;
    let kind = Future::type_object_raw(py);
    // SAFETY: the probe is alive and the type complete; its async slots exist because it has `__await__`. Nobody has
    // used the type yet.
    unsafe {
        let raw = probe.as_ptr().cast::<Raw>();
        let size = usize::try_from((*kind).tp_basicsize).unwrap_or(0);
        let (Some(dealloc), true, true, true) = (
            (*kind).tp_dealloc,
            std::ptr::eq(&raw const (*raw).future, probe.get()),
            size == size_of::<Raw>(),
            !(*kind).tp_as_async.is_null(),
        ) else {
            return Err(PyRuntimeError::new_err("pyo3 lays out classes in another way than ego expects"));
        };
        SLOTS.get_or_init(py, || Slots { kind: NonNull::new_unchecked(kind), dealloc });
        (*(*kind).tp_as_async).am_send = Some(am_send);
        (*(*kind).tp_as_async).am_await = Some(itself);
        (*kind).tp_iter = Some(itself);
        (*kind).tp_iternext = Some(iternext);
        (*kind).tp_dealloc = Some(let_go);
        (*kind).tp_finalize = Some(finalize);
        ffi::PyType_Modified(kind);
    }
    Ok(())
}

/// An answer. One that is done when it is made holds its value alone and can be part of no cycle, so the collector
/// never looks at it.
#[inline]
pub fn make(py: Python<'_>, future: Future) -> PyResult<Py<Future>> {
    let Some(slots) = SLOTS.get(py) else { return Py::new(py, future) };
    let tracked = future.phase.get(py) < Phase::Shown;
    // SAFETY: `kind` is the type of `Raw`. What is spare is a dead object of that type, without a value and untracked;
    // the lock is held. The value is written before anybody sees the object.
    unsafe {
        let mut raw = SPARE.load(Ordering::Relaxed);
        if raw.is_null() {
            raw = ffi::PyObject_GC_New(slots.kind.as_ptr());
            if raw.is_null() {
                return Err(PyErr::fetch(py));
            }
        } else {
            SPARE.store((*raw).before, Ordering::Relaxed);
            SPARES.store(SPARES.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            ffi::PyObject_Init(raw.cast(), slots.kind.as_ptr());
        }
        (&raw mut (*raw.cast::<Raw>()).future).write(future);
        if tracked {
            ffi::PyObject_GC_Track(raw.cast());
        }
        Ok(Bound::from_owned_ptr(py, raw.cast()).cast_into_unchecked().unbind())
    }
}

/// Lets go of an answer: of one that was done when it was made right here, of others as pyo3 does it.
unsafe extern "C" fn let_go(slf: Ptr) {
    // SAFETY: called by the interpreter when the last reference to an answer is gone. One without a loop and without
    // `rest` holds its value alone, which is taken out first; the type lives as long as its objects.
    unsafe {
        let py = Python::assume_attached();
        let future = &(*slf.cast::<Raw>()).future;
        let value = future.value.borrow_mut(py).take().map_or(null_mut(), Py::into_ptr);
        stop::forget(value);
        let plain = future.event_loop.borrow(py).is_none()
            && future.waiter.borrow(py).is_none()
            && future.rest.borrow(py).is_none();
        let seen = future.unretrieved.get(py) || future.finalized.get(py);
        if !plain || seen || SPARES.load(Ordering::Relaxed) == MAX_SPARES {
            *future.value.borrow_mut(py) = Bound::from_owned_ptr_or_opt(py, value).map(Bound::unbind);
            if let Some(slots) = SLOTS.get(py) {
                (slots.dealloc)(slf);
            }
            return;
        }
        let kind = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        ffi::Py_XDECREF(value);
        let spare = slf.cast::<Spare>();
        (*spare).before = SPARE.load(Ordering::Relaxed);
        SPARE.store(spare, Ordering::Relaxed);
        SPARES.store(SPARES.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        ffi::Py_DECREF(kind.cast());
    }
}

/// Called by the collector before it takes anything of a cycle apart: what is reported is still whole.
unsafe extern "C" fn finalize(slf: Ptr) {
    // SAFETY: called by the interpreter with a live answer.
    unsafe {
        let py = Python::assume_attached();
        let future = &(*slf.cast::<Raw>()).future;
        future.finalized.set(py, true);
        future.report(py);
    }
}

unsafe extern "C" fn itself(slf: Ptr) -> Ptr {
    // SAFETY: called by the interpreter with a live object.
    unsafe { ffi::Py_INCREF(slf) };
    slf
}

unsafe extern "C" fn am_send(slf: Ptr, _value: Ptr, result: *mut Ptr) -> ffi::PySendResult {
    // SAFETY: called by the interpreter with an answer and a place for the result. A new reference is written to it, or
    // null with an error set.
    unsafe {
        let py = Python::assume_attached();
        let future = &(*slf.cast::<Raw>()).future;
        match future.phase.get(py) {
            Phase::Shown => {
                let value = future.value.borrow(py).as_ref().map_or(ffi::Py_None(), Py::as_ptr);
                result.write(itself(value));
                ffi::PySendResult::PYGEN_RETURN
            }
            Phase::Queued | Phase::Running | Phase::Writing if !future.blocking.get(py) => {
                future.blocking.set(py, true);
                result.write(itself(slf));
                ffi::PySendResult::PYGEN_NEXT
            }
            phase => {
                result.write(enter(|py| Err(if phase < Phase::Shown { awaited_badly() } else { future.failure(py) })));
                ffi::PySendResult::PYGEN_ERROR
            }
        }
    }
}

unsafe extern "C" fn iternext(slf: Ptr) -> Ptr {
    let mut value = null_mut();
    // SAFETY: called by the interpreter with an answer.
    unsafe {
        if am_send(slf, null_mut(), &raw mut value) == ffi::PySendResult::PYGEN_RETURN {
            stop::raise(value);
            return null_mut();
        }
    }
    value
}

/// One `StopIteration`, used again and again: making one costs 90 ns, and CPython 3.12 and 3.13 want it at each await.
mod stop {
    use super::{AtomicPtr, Ordering, Ptr, ffi, itself, null_mut};

    static SPARE: AtomicPtr<ffi::PyStopIterationObject> = AtomicPtr::new(null_mut());

    /// Raises `StopIteration(value)`; takes the reference over.
    ///
    /// # Safety
    /// The caller holds the lock and a reference to `value`.
    pub(super) unsafe fn raise(value: Ptr) {
        // SAFETY: the caller's promise; the spare object is written only while nobody else holds it. Values are tuples,
        // which `PyErr_SetObject` would unpack, so the instance is always made first.
        unsafe {
            let mut instance = SPARE.load(Ordering::Relaxed);
            if instance.is_null() || ffi::Py_REFCNT(instance.cast()) > 1 {
                instance = ffi::PyObject_CallNoArgs(ffi::PyExc_StopIteration).cast();
                if instance.is_null() {
                    ffi::Py_DECREF(value);
                    return;
                }
                ffi::Py_XDECREF(SPARE.swap(instance, Ordering::Relaxed).cast());
            }
            ffi::PyException_SetTraceback(instance.cast(), ffi::Py_None());
            ffi::PyException_SetContext(instance.cast(), null_mut());
            ffi::Py_XDECREF(std::mem::replace(&mut (*instance).value, value));
            #[cfg(Py_3_12)]
            ffi::PyErr_SetRaisedException(itself(instance.cast()));
            #[cfg(not(Py_3_12))]
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, instance.cast());
        }
    }

    /// Lets go of a value that is about to die with its answer.
    ///
    /// # Safety
    /// The caller holds the lock.
    pub(super) unsafe fn forget(value: Ptr) {
        // SAFETY: as for `raise`.
        unsafe {
            let spare = SPARE.load(Ordering::Relaxed);
            if !spare.is_null() && (*spare).value == value && ffi::Py_REFCNT(spare.cast()) == 1 {
                ffi::Py_XDECREF(std::mem::replace(&mut (*spare).value, itself(ffi::Py_None())));
            }
        }
    }
}

/// Runs a body with the lock that the caller of a slot holds.
pub fn enter(body: impl FnOnce(Python<'_>) -> PyResult<Ptr>) -> Ptr {
    let failed = |_| Err(PyRuntimeError::new_err("ego failed inside; this is a bug in ego"));
    Python::attach(|py| match catch_unwind(AssertUnwindSafe(|| body(py))).unwrap_or_else(failed) {
        Ok(value) => value,
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    })
}

/// For code that a slot called without [`enter`]: what is let go of in here is let go of at once.
#[cold]
pub fn attached<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    Python::attach(body)
}
