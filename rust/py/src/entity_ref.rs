//! The way in: `EntityRef`, one entity as its callers hold it.

use crate::dispatch::{At, Patience, Wish};
use crate::engine::Engine;
use crate::entity::Entity;
use crate::error;
use crate::run::Run;
use ego_answer::answer::Answer;
use ego_answer::cell::GilCell;
use ego_answer::fast::attached;
use ego_core::StoreError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use pyo3::{PyTraverseError, PyVisit};
use std::cell::Ref;
use std::sync::Arc;

/// How long a sender waits.
pub(crate) struct Timeout(pub(crate) Patience);

/// Five seconds.
const DEFAULT_TIMEOUT: Timeout = Timeout(Patience::Nanos(5_000_000_000));

impl<'py> FromPyObject<'_, 'py> for Timeout {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if given.is_none() {
            return Ok(Self(Patience::ForEver));
        }
        let seconds = if given.is_instance_of::<PyBool>() { f64::NAN } else { given.extract().unwrap_or(f64::NAN) };
        if seconds > 0.0 {
            // What is longer than 500 years is none.
            let wait = std::time::Duration::try_from_secs_f64(seconds).ok();
            let nanos = wait.and_then(|wait| u64::try_from(wait.as_nanos()).ok());
            return Ok(Self(nanos.map_or(Patience::ForEver, |nanos| Patience::Nanos(nanos.max(1)))));
        }
        Err(PyValueError::new_err(format!(
            "timeout is a number of seconds above 0, or None for no deadline, not {}",
            given.repr()?
        )))
    }
}

/// One entity, for those who send to it.
#[pyclass(frozen, weakref, generic, module = "ego", name = "EntityRef")]
pub(crate) struct EntityRef {
    engine: Py<Engine>,
    entity: GilCell<Arc<Entity>>,
}

impl EntityRef {
    pub(crate) fn new(engine: Py<Engine>, entity: Arc<Entity>) -> Self {
        Self { engine, entity: GilCell::new(entity) }
    }

    /// The live entity; another one after the engine was stopped and started.
    #[inline]
    pub(crate) fn entity<'a>(&'a self, py: Python<'_>) -> Ref<'a, Arc<Entity>> {
        if self.entity.borrow(py).dropped.get(py) {
            let current = self.engine.get().current(py, &self.entity.borrow(py));
            *self.entity.borrow_mut(py) = current;
        }
        self.entity.borrow(py)
    }

    /// Gives the present run and the entity to `body`. Both stay what they are while a `def` handler runs.
    #[inline]
    pub(crate) fn with_place<'py, R>(
        &self,
        py: Python<'py>,
        needs_loop: bool,
        body: impl FnOnce(At<'_, 'py>) -> PyResult<R>,
    ) -> PyResult<R> {
        let engine = self.engine.bind(py);
        let run = engine.get().run.borrow(py);
        let Some(held) = &*run else { return Err(engine.get().not_started(py)) };
        let Some(event_loop) = held.home.elsewhere(py)? else {
            return body(At { py, engine, run: held, entity: &self.entity(py), caller: None });
        };
        let held = Arc::clone(held);
        drop(run);
        if needs_loop && event_loop.is_none() {
            return Err(no_loop(py, &held));
        }
        self.visit(&event_loop, &held, body)
    }

    /// The same for a caller on another loop or thread: the engine may stop meanwhile.
    #[cold]
    fn visit<'py, R>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        run: &Arc<Run>,
        body: impl FnOnce(At<'_, 'py>) -> PyResult<R>,
    ) -> PyResult<R> {
        let py = event_loop.py();
        let engine = self.engine.bind(py);
        if run.home.is_closed(py)? {
            return Err(error::not_started(py, "the event loop that the engine was started on is closed"));
        }
        let entity = Arc::clone(&*self.entity(py));
        run.visitors.add(py, 1);
        let visited = attached(|_| body(At { py, engine, run, entity: &entity, caller: Some(event_loop) }));
        run.visitors.sub(py, 1);
        engine.get().check_drained(py)?;
        visited
    }
}

/// Why a call from a thread without an event loop is refused.
#[cold]
fn no_loop(py: Python<'_>, run: &Run) -> PyErr {
    match run.events.journal.poisoned() {
        Some(forked @ StoreError::Forked { .. }) => error::storage(py, &forked),
        _ => error::not_started(
            py,
            "no event loop runs in this thread: call it from a coroutine, or use ego.sync.Engine in threads",
        ),
    }
}

#[pymethods]
impl EntityRef {
    /// Sends a command without an answer. What goes wrong with it is logged.
    #[pyo3(signature = (command, /))]
    fn tell(&self, command: &Bound<'_, PyAny>) -> PyResult<()> {
        self.with_place(command.py(), false, |at| at.tell(command))
    }

    /// Asks for `(state, revision)` without a command.
    #[pyo3(signature = (*, timeout = DEFAULT_TIMEOUT), text_signature = "($self, *, timeout=5.0)")]
    fn state(&self, py: Python<'_>, timeout: Timeout) -> PyResult<Py<PyAny>> {
        self.with_place(py, true, |at| at.ask(Wish::State, timeout.0)).map(Answer::into_any)
    }

    /// The entity's id.
    #[getter]
    fn id(&self, py: Python<'_>) -> String {
        self.entity.borrow(py).key.id.to_string()
    }

    /// The entity's kind.
    #[getter]
    fn kind(&self, py: Python<'_>) -> String {
        self.entity.borrow(py).key.kind.to_string()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let entity = self.entity.borrow(py);
        format!("<ego.EntityRef {}/{}>", entity.key.kind, entity.key.id)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let py = other.py();
        other.cast_exact::<Self>().is_ok_and(|other| {
            let other = other.get();
            self.engine.is(&other.engine) && self.entity.borrow(py).key == other.entity.borrow(py).key
        })
    }

    fn __hash__(&self, py: Python<'_>) -> u64 {
        self.entity.borrow(py).key.hash()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)
    }
}

/// `send`, put into the type by hand: pyo3's own way in costs a command in memory 5 %.
mod by_hand {
    #![expect(unsafe_code, reason = "a method of the C API")]

    use super::{DEFAULT_TIMEOUT, EntityRef, Timeout};
    use crate::terms::Given;
    use ego_answer::answer::Answer;
    use ego_answer::fast::{attached, enter};
    use pyo3::exceptions::PyTypeError;
    use pyo3::ffi::{self, PyObject};
    use pyo3::prelude::*;
    use pyo3::types::{PyString, PyTuple};
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    const DOC: &std::ffi::CStr = c"send($self, command, /, *, timeout=5.0, expected_revision=None, command_id=None, \
        metadata=None)\n--\n\n\
        Sends a command; the awaitable gives (state, revision). Accepted at the call.";

    type Arguments = *const *mut PyObject;

    unsafe extern "C" fn send(
        slf: *mut PyObject,
        arguments: Arguments,
        count: ffi::Py_ssize_t,
        names: *mut PyObject,
    ) -> *mut PyObject {
        // SAFETY: the interpreter calls a method descriptor of the type with an object of it, a vector of `count`
        // arguments and the named ones, and holds the lock. What lets go of objects in there enters pyo3 first.
        let sent = catch_unwind(AssertUnwindSafe(|| unsafe {
            let py = Python::assume_attached();
            let slf = Borrowed::from_ptr(py, slf).cast_unchecked::<EntityRef>().get();
            if count == 1 && names.is_null() {
                let command = Borrowed::from_ptr(py, *arguments);
                return slf.with_place(py, true, |at| at.send(&command, DEFAULT_TIMEOUT.0, None));
            }
            attached(|py| named(py, slf, arguments, count, names))
        }));
        match sent {
            Ok(Ok(answer)) => answer.into_any().into_ptr(),
            Ok(Err(failure)) => enter(|_| Err(failure)),
            Err(panic) => enter(|_| resume_unwind(panic)),
        }
    }

    /// Sends with what is given by name.
    ///
    /// # Safety
    /// The arguments are those of a call.
    unsafe fn named(
        py: Python<'_>,
        slf: &EntityRef,
        arguments: Arguments,
        count: ffi::Py_ssize_t,
        names: *mut PyObject,
    ) -> PyResult<Answer> {
        let refuse = || {
            PyTypeError::new_err(
                "send takes one command, and timeout=, expected_revision=, command_id=, metadata= by name",
            )
        };
        if count != 1 {
            return Err(refuse());
        }
        // SAFETY: the caller's promise: one argument is there, and what is named follows it, in the order of the names.
        let (command, names) = unsafe { (Borrowed::from_ptr(py, *arguments), Borrowed::from_ptr_or_opt(py, names)) };
        let names = names.map(|names| names.cast::<PyTuple>().map(|names| names.to_owned())).transpose()?;
        let names: Vec<Bound<'_, PyAny>> = names.iter().flat_map(|names| names.iter()).collect();
        let mut values = Vec::with_capacity(names.len());
        for index in 1..=names.len() {
            // SAFETY: as above.
            values.push(unsafe { Borrowed::from_ptr(py, *arguments.add(index)) }.to_owned());
        }
        let (mut timeout, mut given) = (DEFAULT_TIMEOUT.0, Given::default());
        for (name, value) in names.iter().zip(&values) {
            match name.cast::<PyString>()?.to_str()? {
                "timeout" => timeout = Timeout::extract(value.as_borrowed())?.0,
                "expected_revision" => given.expected_revision = Some(value),
                "command_id" => given.command_id = Some(value),
                "metadata" => given.metadata = Some(value),
                _ => return Err(refuse()),
            }
        }
        let given = given.is_some().then_some(&given);
        slf.with_place(py, true, |at| at.send(&command, timeout, given))
    }

    /// Puts `send` into the type.
    pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
        let method = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: c"send".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: send },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: DOC.as_ptr(),
        }));
        let kind = py.get_type::<EntityRef>();
        // SAFETY: the definition is never freed; gives a new descriptor or null with an error set.
        let descriptor =
            unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(kind.as_type_ptr(), method))? };
        kind.setattr("send", descriptor)
    }
}

pub(crate) use by_hand::init;
