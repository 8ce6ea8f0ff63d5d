//! The way in: `EntityRef`, one entity as its callers hold it.

use ego_answer::answer::Answer;
use ego_answer::cell::GilCell;
use ego_answer::fast::attached;
use ego_core::StoreError;
use ego_engine::Entity;
use ego_engine::dispatch::{At, Patience, Wish};
use ego_engine::engine::Engine;
use ego_engine::error;
use ego_engine::run::Run;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use pyo3::{PyTraverseError, PyVisit};
use std::cell::Ref;
use std::sync::Arc;

/// How long a sender waits.
pub(crate) struct Timeout(pub(crate) Patience);

/// Five seconds.
pub(crate) const DEFAULT_TIMEOUT: Timeout = Timeout(Patience::Nanos(5_000_000_000));

impl Timeout {
    /// That many seconds, more than 0. What is longer than 500 years is none.
    pub(crate) fn of(seconds: f64) -> Self {
        let wait = std::time::Duration::try_from_secs_f64(seconds).ok();
        let nanos = wait.and_then(|wait| u64::try_from(wait.as_nanos()).ok());
        Self(nanos.map_or(Patience::ForEver, |nanos| Patience::Nanos(nanos.max(1))))
    }
}

impl<'py> FromPyObject<'_, 'py> for Timeout {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if given.is_none() {
            return Ok(Self(Patience::ForEver));
        }
        let seconds = if given.is_instance_of::<PyBool>() { f64::NAN } else { given.extract().unwrap_or(f64::NAN) };
        if seconds > 0.0 {
            return Ok(Self::of(seconds));
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

    /// The live entity; it may be another one since it was used last.
    #[inline]
    pub(crate) fn entity<'a>(&'a self, py: Python<'_>) -> Ref<'a, Arc<Entity>> {
        if self.entity.borrow(py).away.get(py) {
            let current = self.engine.get().current(py, &self.entity.borrow(py));
            // Where somebody looks at it further up the stack, the old one leads on to the new.
            if let Some(mut held) = self.entity.try_borrow_mut(py) {
                *held = current;
            }
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
        let Some(held) = &*run else {
            // Making the error runs Python code, and another thread may start the engine meanwhile.
            drop(run);
            return Err(engine.get().not_started(py));
        };
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
