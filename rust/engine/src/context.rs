//! Who is running right now: `ego.context()`, and what a handler tells.
//!
//! A `def` handler runs under a frame on this thread's stack; an `async def` one has its [`Context`] in a context
//! variable of its task. What a handler tells is kept here until its own unit is durable.

use crate::clock::{self, HandClock};
use crate::engine::Engine;
use crate::entity::{Entity, House};
use crate::kind::KindSpec;
use crate::terms::{Given, Terms};
use ego_answer::cell::GilCell;
use pyo3::exceptions::PyLookupError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateTime, PyDict};
use pyo3::{PyTraverseError, PyVisit};
use std::cell::{Cell, RefCell};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A command on its way to an entity, without an answer.
#[derive(Debug)]
pub struct Tell {
    pub engine: Py<Engine>,
    pub entity: Arc<Entity>,
    pub command: Py<PyAny>,
    pub terms: Option<Arc<Terms>>,
    /// The sender's context.
    pub context: Py<PyAny>,
}

impl Tell {
    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        visit.call(&self.command)?;
        visit.call(&self.context)
    }
}

/// A `def` handler on the stack of this thread.
pub struct Frame<'a> {
    pub entity: &'a Arc<Entity>,
    pub revision: u64,
    pub terms: Option<&'a Arc<Terms>>,
    pub tells: RefCell<Vec<Tell>>,
    above: Cell<Option<NonNull<Frame<'static>>>>,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Frame<'static>>>> = const { Cell::new(None) };
}

impl<'a> Frame<'a> {
    #[inline]
    pub fn new(entity: &'a Arc<Entity>, revision: u64, terms: Option<&'a Arc<Terms>>) -> Self {
        Self { entity, revision, terms, tells: RefCell::default(), above: Cell::new(None) }
    }

    pub fn has_told_nothing(&self) -> bool {
        self.tells.borrow().is_empty()
    }

    /// Runs user code under this frame.
    #[inline]
    pub fn run<R>(&self, body: impl FnOnce() -> R) -> R {
        let this: NonNull<Frame<'static>> = NonNull::from(self).cast();
        replaced(Some(this), |above| {
            self.above.set(above);
            body()
        })
    }
}

/// Runs `body` with another innermost frame.
#[inline]
fn replaced<R>(frame: Option<NonNull<Frame<'static>>>, body: impl FnOnce(Option<NonNull<Frame<'static>>>) -> R) -> R {
    CURRENT.with(|current| {
        let restore = Restore { current, above: current.replace(frame) };
        body(restore.above)
    })
}

struct Restore<'a> {
    current: &'a Cell<Option<NonNull<Frame<'static>>>>,
    above: Option<NonNull<Frame<'static>>>,
}

impl Drop for Restore<'_> {
    #[inline]
    fn drop(&mut self) {
        self.current.set(self.above);
    }
}

/// Runs code that belongs to no `def` handler, wherever it is called from.
pub fn outside<R>(body: impl FnOnce() -> R) -> R {
    replaced(None, |_| body())
}

/// Shows the innermost `def` handler of this thread to `look`.
fn with_frame<R>(look: impl FnOnce(&Frame<'_>) -> R) -> Option<R> {
    let frame = CURRENT.get()?;
    #[expect(unsafe_code, reason = "a counted reference to the entity would cost 10 ns a command")]
    // SAFETY: `Frame::run` restores the pointer before the frame it points to goes away, on this very thread, and
    // `look` cannot keep the reference.
    Some(look(unsafe { frame.as_ref() }))
}

/// Whether this code runs in a `def` handler.
pub fn in_plain_handler() -> bool {
    CURRENT.get().is_some()
}

/// The entities whose `def` handlers are on this thread's stack, the innermost first.
pub fn stack() -> Vec<Arc<Entity>> {
    let mut entities = Vec::new();
    let mut at = CURRENT.get();
    while let Some(frame) = at {
        #[expect(unsafe_code, reason = "as in `with_frame`")]
        // SAFETY: frames further up are on the stack as long as the inner ones.
        let frame = unsafe { frame.as_ref() };
        entities.push(Arc::clone(frame.entity));
        at = frame.above.get();
    }
    entities
}

/// Where a handler stands: which entity it runs for.
#[pyclass(frozen, module = "ego._native")]
#[derive(Debug)]
pub struct Context {
    pub entity: Arc<Entity>,
    revision: u64,
    terms: Option<Arc<Terms>>,
    /// What the `async def` handler told so far; none once it is done.
    tells: GilCell<Option<Vec<Tell>>>,
}

/// The context variable that holds the [`Context`] of a task.
pub fn variable(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = VARIABLE.get_or_try_init(py, || {
        PyResult::Ok(py.import("contextvars")?.getattr("ContextVar")?.call1(("ego.context",))?.unbind())
    })?;
    Ok(made.bind(py))
}

/// The context of the `async def` handler that this code belongs to, if there is one and it is not done.
pub fn of_task(py: Python<'_>) -> PyResult<Option<Bound<'_, Context>>> {
    let variable = variable(py)?;
    let mut value = null_mut();
    #[expect(unsafe_code, reason = "the C API alone has this call")]
    // SAFETY: `variable` is a context variable; a new reference or null is written to `value`.
    let value = unsafe {
        if ffi::PyContextVar_Get(variable.as_ptr(), null_mut(), &raw mut value) < 0 {
            return Err(PyErr::fetch(py));
        }
        Bound::from_owned_ptr_or_opt(py, value)
    };
    Ok(value.and_then(|value| value.cast_into::<Context>().ok()).filter(|found| found.get().tells.borrow(py).is_some()))
}

/// The entity in whose handler this code runs, if the handler can wait for an answer.
pub fn waiting_sender(py: Python<'_>) -> PyResult<Option<Arc<Entity>>> {
    if CURRENT.get().is_some() {
        return Ok(None);
    }
    Ok(of_task(py)?.map(|found| Arc::clone(&found.get().entity)))
}

/// `async def` handlers that are under way in this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Whether this code may run in a handler; quick where it does not.
#[inline]
pub fn may_be_inside() -> bool {
    CURRENT.get().is_some() || OPEN.load(Ordering::Relaxed) > 0
}

/// What the command carries in whose handler this code runs.
pub fn terms_of_sender(py: Python<'_>) -> PyResult<Option<Arc<Terms>>> {
    if !may_be_inside() {
        return Ok(None);
    }
    match with_frame(|frame| frame.terms.cloned()) {
        Some(terms) => Ok(terms),
        None => Ok(of_task(py)?.and_then(|found| found.get().terms.clone())),
    }
}

/// Whether this code runs in a handler.
pub fn is_inside(py: Python<'_>) -> PyResult<bool> {
    Ok(CURRENT.get().is_some() || of_task(py)?.is_some())
}

/// Keeps what a handler tells until its unit is durable.
pub fn keep(py: Python<'_>, tell: Tell) -> PyResult<()> {
    let mut tell = Some(tell);
    with_frame(|frame| frame.tells.borrow_mut().extend(tell.take()));
    if tell.is_some()
        && let Some(scope) = of_task(py)?
        && let Some(tells) = &mut *scope.get().tells.borrow_mut(py)
    {
        tells.extend(tell.take());
    }
    Ok(())
}

impl Context {
    /// The context of an `async def` handler; it starts with what was told while its coroutine was made.
    pub fn open(
        py: Python<'_>,
        entity: &Arc<Entity>,
        revision: u64,
        terms: Option<Arc<Terms>>,
        tells: Vec<Tell>,
    ) -> PyResult<Py<Self>> {
        let opened =
            Py::new(py, Self { entity: Arc::clone(entity), revision, terms, tells: GilCell::new(Some(tells)) })?;
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    /// Ends the handler's part and gives what it told.
    pub fn close(&self, py: Python<'_>) -> Vec<Tell> {
        let tells = self.tells.borrow_mut(py).take();
        if tells.is_some() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
        tells.unwrap_or_default()
    }

    /// Makes this the context of what runs in the current `contextvars` context.
    pub fn enter(this: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        variable(py)?.call_method1("set", (this,)).map(drop)
    }
}

#[pymethods]
impl Context {
    /// The context of a command outside of any engine.
    #[staticmethod]
    #[pyo3(signature = (spec, entity_id, revision, command, *, command_id, metadata, clock))]
    fn standing(
        spec: &KindSpec,
        entity_id: &str,
        revision: u64,
        command: &Bound<'_, PyAny>,
        command_id: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        clock: Option<&HandClock>,
    ) -> PyResult<Py<Self>> {
        let py = command.py();
        let house = House::new(clock.map(|clock| clock.0.clone()).unwrap_or_default());
        let entity = Arc::new(Entity::new(Arc::new(spec.0.numbered(py, 0, &Arc::new(house))), entity_id));
        let given = Given { expected_revision: None, command_id, metadata };
        let terms = Terms::of(&given, command, &entity.kind, &entity.key)?;
        Self::open(py, &entity, revision, terms, Vec::new())
    }

    /// Ends it, and drops what was told in it.
    #[pyo3(name = "close")]
    fn leave(&self, py: Python<'_>) {
        drop(self.close(py));
    }

    /// The entity's id.
    #[getter]
    fn entity_id(&self) -> &str {
        &self.entity.key.id
    }

    /// The entity's kind.
    #[getter]
    fn kind(&self) -> &str {
        &self.entity.key.kind
    }

    /// The entity's revision when the handler began.
    #[getter]
    fn revision(&self) -> u64 {
        self.revision
    }

    /// The id of the command, if it has one.
    #[getter]
    fn command_id(&self) -> Option<&str> {
        self.terms.as_ref()?.command.as_ref().map(|command| &*command.id)
    }

    /// What was given with the command, and what it inherited.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        Terms::metadata_of(self.terms.as_deref(), py)
    }

    /// The time of the engine's clock, in UTC.
    fn now<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
        clock::utc(py, self.entity.kind.house.clock.wall_nanos())
    }

    fn __repr__(&self) -> String {
        format!("<ego.Context {}/{} revision {}>", self.entity.key.kind, self.entity.key.id, self.revision)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let tells = self.tells.in_traverse();
        tells.iter().flat_map(|tells| tells.iter().flatten()).try_for_each(|tell| tell.traverse(visit))
    }

    fn __clear__(&self) {
        Python::attach(|py| drop(self.close(py)));
    }
}

/// Where the running handler stands.
#[pyfunction]
pub fn context(py: Python<'_>) -> PyResult<Py<Context>> {
    let found = with_frame(|frame| (Arc::clone(frame.entity), frame.revision, frame.terms.cloned()));
    if let Some((entity, revision, terms)) = found {
        return Py::new(py, Context { entity, revision, terms, tells: GilCell::new(None) });
    }
    match of_task(py)? {
        Some(found) => Ok(found.unbind()),
        None => Err(PyLookupError::new_err("ego.context() is available inside a handler only")),
    }
}
