//! The only code that touches an event loop.
//!
//! The committer writes one eventfd per loop and batch; the loop's reader then shows everything that was settled. A
//! task that waits is stepped right there, which saves a pass through the loop's ready queue per command.

use crate::call::Function;
use crate::cell::GilValue;
use crate::error;
use pyo3::exceptions::PyOSError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyTuple};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Rings a loop from any thread, at most once until the loop has listened.
#[derive(Debug)]
pub struct Bell {
    descriptor: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// `OSError`.
    pub fn new() -> PyResult<Arc<Self>> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| PyOSError::new_err((error.raw_os_error(), "eventfd failed")))?;
        Ok(Arc::new(Self { descriptor, rung: AtomicBool::new(false) }))
    }

    /// Rings it.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // The counter cannot be full: it is read before it is written again.
            let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
        }
    }

    /// Silences the bell; what is settled from now on rings it again.
    pub fn listen(&self) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.descriptor, &mut counter);
        self.rung.store(false, Ordering::SeqCst);
    }

    /// The descriptor that a loop watches.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

/// The loop and the thread that an engine was started on.
#[derive(Debug)]
pub struct Home {
    /// The loop.
    pub event_loop: Py<PyAny>,
    thread: usize,
    /// This thread's dictionary, and its version when the loop was last seen to be the running one.
    seen: GilValue<(usize, u64)>,
}

/// A number that no other living thread has.
fn this_thread() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Home {
    /// The loop that is to run on this very thread.
    #[must_use]
    pub fn new(event_loop: Py<PyAny>) -> Self {
        Self { event_loop, thread: this_thread(), seen: GilValue::default() }
    }

    /// Whether this is the loop's thread.
    #[must_use]
    pub fn is_this_thread(&self) -> bool {
        self.thread == this_thread()
    }

    /// The loop that runs on this thread where it is another one or none (`None`); nothing where it is this one.
    ///
    /// # Errors
    /// What asking for it raises.
    #[inline]
    pub fn elsewhere<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let now = version(py);
        if now.1 != 0 && now == self.seen.get(py) {
            return Ok(None);
        }
        let running = running_or_none(py)?;
        if running.is(&self.event_loop) {
            self.seen.set(py, now);
            return Ok(None);
        }
        Ok(Some(running))
    }

    /// Makes a task on the loop; on its thread only.
    ///
    /// # Errors
    /// What the loop raises.
    pub fn create_task<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        name: &str,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        let named = PyDict::new(py);
        named.set_item(intern!(py, "name"), name)?;
        named.set_item(intern!(py, "context"), context)?;
        self.event_loop.bind(py).call_method(intern!(py, "create_task"), (coroutine,), Some(&named))
    }

    /// Has the loop call a function, from whatever thread. A closed loop calls nothing.
    ///
    /// # Errors
    /// What the loop raises.
    pub fn call_soon(&self, py: Python<'_>, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        let event_loop = self.event_loop.bind(py);
        if self.is_this_thread() {
            return event_loop.call_method1(intern!(py, "call_soon"), (callback,)).map(drop);
        }
        if self.is_closed(py)? {
            return Ok(());
        }
        event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (callback,)).map(drop)
    }

    /// Whether the loop will never run again.
    ///
    /// # Errors
    /// What the loop raises.
    pub fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        self.event_loop.call_method0(py, intern!(py, "is_closed"))?.is_truthy(py)
    }

    /// Has the loop call a function later; on its thread only. Gives the timer.
    ///
    /// # Errors
    /// What the loop raises.
    pub fn call_later(&self, py: Python<'_>, nanos: u64, callback: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let seconds = std::time::Duration::from_nanos(nanos).as_secs_f64();
        self.event_loop.call_method1(py, intern!(py, "call_later"), (seconds, callback))
    }

    /// Has the loop call a function whenever the bell rings.
    ///
    /// # Errors
    /// What the loop raises: not every loop watches descriptors.
    pub fn add_reader(&self, py: Python<'_>, bell: &Bell, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        self.event_loop.call_method1(py, intern!(py, "add_reader"), (bell.number(), callback)).map(drop)
    }

    /// Ends that.
    ///
    /// # Errors
    /// What the loop raises.
    pub fn remove_reader(&self, py: Python<'_>, bell: &Bell) -> PyResult<()> {
        if self.is_closed(py)? {
            return Ok(());
        }
        self.event_loop.call_method1(py, intern!(py, "remove_reader"), (bell.number(),)).map(drop)
    }
}

/// This thread's dictionary and its version, which every change to it changes; 0 where an interpreter keeps none, as
/// CPython does from 3.13 on.
#[inline]
fn version(_py: Python<'_>) -> (usize, u64) {
    #[cfg(Py_3_13)]
    return (0, 0);
    #[cfg(not(Py_3_13))]
    #[expect(unsafe_code, reason = "looking the loop up takes 10 ns more")]
    #[cfg_attr(Py_3_12, expect(deprecated, reason = "still kept up to date by 3.12"))]
    // SAFETY: gives a borrowed dictionary or null.
    unsafe {
        let dictionary: *mut ffi::PyDictObject = ffi::PyThreadState_GetDict().cast();
        if dictionary.is_null() { (0, 0) } else { (dictionary.addr(), (*dictionary).ma_version_tag) }
    }
}

/// The loop that runs on this thread, or Python's `None`.
///
/// # Errors
/// What asking for it raises.
pub fn running_or_none(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static ASK: PyOnceLock<Function> = PyOnceLock::new();
    let ask = ASK.get_or_try_init(py, || {
        let ask = py.import("asyncio")?.getattr("_get_running_loop")?;
        PyResult::Ok(Function::new(py, ask.unbind()))
    })?;
    ask.call(py, [])
}

/// The loop that runs on this thread.
///
/// # Errors
/// `RuntimeError` where none does.
pub fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("asyncio")?.getattr("get_running_loop")?.call0()
}

/// The current context, copied.
///
/// # Errors
/// There is no memory.
pub fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    #[expect(unsafe_code, reason = "the C API alone has this call")]
    // SAFETY: gives a new reference or null with an error set.
    unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())
    }
}

/// Runs `body` inside a context.
///
/// # Errors
/// The context is entered already.
pub fn within<R>(context: &Bound<'_, PyAny>, body: impl FnOnce() -> R) -> PyResult<R> {
    let py = context.py();
    #[expect(unsafe_code, reason = "the C API alone has these calls")]
    // SAFETY: `context` is a live object; the call checks its type. It is left again below, panic or not, by the guard.
    let entered = unsafe { ffi::PyContext_Enter(context.as_ptr()) };
    if entered != 0 {
        return Err(PyErr::fetch(py));
    }
    let _leave = Leave(context);
    Ok(body())
}

struct Leave<'a, 'py>(&'a Bound<'py, PyAny>);

impl Drop for Leave<'_, '_> {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the C API alone has this call")]
        // SAFETY: the context was entered by this thread in `within` and is the current one again.
        let left = unsafe { ffi::PyContext_Exit(self.0.as_ptr()) };
        if left != 0 {
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), None);
        }
    }
}

/// Calls what waits for an answer right now, in its context. No task may be current.
///
/// # Errors
/// What may not be swallowed: `KeyboardInterrupt`, `SystemExit`.
pub fn step(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    answer: &Bound<'_, PyAny>,
    context: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let argument = if is_task_wakeup(callback) { stand_in(py).unwrap_or(answer) } else { answer };
    let Ok(called) = within(context, || callback.call1((argument,))) else {
        return call_soon(event_loop, callback, answer, context);
    };
    match called {
        Ok(_) => Ok(()),
        Err(failure) if error::ends_the_process(py, &failure) => Err(failure),
        Err(failure) => report(event_loop, "an answer's callback failed", failure),
    }
}

/// Whether this is how a task of asyncio's C module is resumed. It takes 100 ns to ask a foreign future whether it
/// failed, which the coroutine that it resumes does anyway; of a future of its own it sees that at once.
fn is_task_wakeup(callback: &Bound<'_, PyAny>) -> bool {
    static ADDRESS: AtomicUsize = AtomicUsize::new(0);
    if callback.get_type_ptr() != &raw mut ffi::PyCFunction_Type {
        return false;
    }
    #[expect(unsafe_code, reason = "the C API alone has this call")]
    // SAFETY: its type says that `callback` is a built-in function.
    let address = unsafe { ffi::PyCFunction_GetFunction(callback.as_ptr()) }.map_or(0, |function| function as usize);
    if ADDRESS.load(Ordering::Relaxed) == address && address != 0 {
        return true;
    }
    let py = callback.py();
    let is_one = (|| {
        let name = callback.getattr(intern!(py, "__name__"))?;
        let task = py.import("_asyncio")?.getattr("Task")?;
        PyResult::Ok(name.eq("task_wakeup")? && callback.getattr(intern!(py, "__self__"))?.is_instance(&task)?)
    })();
    if !is_one.unwrap_or(false) {
        return false;
    }
    ADDRESS.store(address, Ordering::Relaxed);
    true
}

/// A future of asyncio's C module that is done and belongs to no loop, where there is such a module.
fn stand_in<'py>(py: Python<'py>) -> Option<&'py Bound<'py, PyAny>> {
    static DONE: PyOnceLock<Option<Py<PyAny>>> = PyOnceLock::new();
    let made = DONE.get_or_init(py, || {
        let made = (|| {
            let no_loop = PyDict::new(py);
            no_loop.set_item("get_debug", py.get_type::<PyBool>())?;
            let no_loop = py.import("types")?.getattr("SimpleNamespace")?.call((), Some(&no_loop))?;
            let named = PyDict::new(py);
            named.set_item("loop", no_loop)?;
            let done = py.import("_asyncio")?.getattr("Future")?.call((), Some(&named))?;
            done.call_method1("set_result", (py.None(),))?;
            PyResult::Ok(done.unbind())
        })();
        made.ok()
    });
    made.as_ref().map(|done| done.bind(py))
}

/// Has a loop call what waits for an answer, from whatever thread. A closed loop calls nothing.
///
/// # Errors
/// What the loop raises.
pub fn call_soon(
    event_loop: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    answer: &Bound<'_, PyAny>,
    context: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    if event_loop.call_method0(intern!(py, "is_closed"))?.is_truthy()? {
        return Ok(());
    }
    let named = PyDict::new(py);
    named.set_item(intern!(py, "context"), context)?;
    let here = running_or_none(py)?.is(event_loop);
    let method = if here { intern!(py, "call_soon") } else { intern!(py, "call_soon_threadsafe") };
    event_loop.call_method(method, PyTuple::new(py, [callback, answer])?, Some(&named)).map(drop)
}

/// Hands an exception that nobody waits for to the loop's exception handler.
///
/// # Errors
/// What the handler raises.
pub fn report(event_loop: &Bound<'_, PyAny>, message: &str, failure: PyErr) -> PyResult<()> {
    let py = event_loop.py();
    let context = PyDict::new(py);
    context.set_item("message", message)?;
    context.set_item("exception", failure.into_value(py))?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
}
