//! The native half of `ego.Engine`: what Python calls it for.

use crate::entity_ref::EntityRef;
use crate::store::{self, Store};
use ego_core::feed::Filter;
use ego_core::journal::{EntityKey, MAX_NAME_BYTES};
use ego_engine::clock::HandClock;
use ego_engine::engine::Engine;
use ego_engine::feed::Feed;
use ego_engine::kind::{self, KindSpec};
use ego_engine::notes;
use ego_engine::run::Lane;
use ego_engine::{Entity, error};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;

/// The native half of an engine.
#[pyclass(frozen, weakref, name = "Engine", module = "ego._native")]
pub(crate) struct NativeEngine(Py<Engine>);

impl NativeEngine {
    fn find(&self, py: Python<'_>, kind: usize, entity_id: &str) -> PyResult<Option<Arc<Entity>>> {
        let engine = self.0.get();
        Ok(engine.find(py, &engine.kind(py, kind)?, entity_id))
    }
}

#[pymethods]
impl NativeEngine {
    #[new]
    #[pyo3(signature = (name, *, mailbox_capacity, resident_limit, clock))]
    fn new(
        py: Python<'_>,
        name: String,
        mailbox_capacity: usize,
        resident_limit: Option<usize>,
        clock: Option<&HandClock>,
    ) -> PyResult<Self> {
        let clock = clock.map(|clock| clock.0.clone()).unwrap_or_default();
        Py::new(py, Engine::new(name, mailbox_capacity, resident_limit, clock)).map(Self)
    }

    /// Takes a kind in and gives its number; with a number, in the place of the kind that has it, before a start.
    #[pyo3(signature = (spec, number))]
    fn register(&self, py: Python<'_>, spec: &Bound<'_, KindSpec>, number: Option<usize>) -> usize {
        self.0.get().register(py, spec.get(), number)
    }

    /// Takes commands from now on, on the running loop.
    #[pyo3(signature = (store, states, event_loop))]
    fn start(
        &self,
        store: &Bound<'_, Store>,
        states: Option<&Bound<'_, Store>>,
        event_loop: Py<PyAny>,
    ) -> PyResult<()> {
        let lane = |store: &Bound<'_, Store>| {
            let store = store.get();
            Lane::new(Arc::clone(&store.journal), Arc::clone(&store.loader))
        };
        Engine::start(self.0.bind(store.py()), lane(store), states.map(lane), event_loop)
    }

    /// Takes commands from handlers alone from now on.
    fn refuse_outside(&self, py: Python<'_>) {
        self.0.get().refuse_outside(py);
    }

    /// An awaitable that is done once no command is queued, running or waiting for the disk.
    fn drained(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get().drained(py)
    }

    /// Lets go of the loop and of every entity; tells how many commands had no end.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let unfinished = self.0.get().finish(py)?;
        let counts = PyDict::new(py);
        counts.set_item("queued", unfinished.queued)?;
        counts.set_item("running", unfinished.running)?;
        counts.set_item("waiting", unfinished.waiting)?;
        Ok(counts)
    }

    /// The reference of an entity, which may not exist yet.
    #[pyo3(name = "ref")]
    fn reference(&self, kind: usize, entity_id: &Bound<'_, PyAny>) -> PyResult<EntityRef> {
        let (py, engine) = (entity_id.py(), self.0.get());
        drop(engine.running(py)?);
        let kind = engine.kind(py, kind)?;
        let id = checked_id(py, &kind.name, entity_id)?;
        let entity = engine.find(py, &kind, &id).unwrap_or_else(|| Arc::new(Entity::new(kind, &id)));
        Ok(EntityRef::new(self.0.clone_ref(py), entity))
    }

    /// Has the entity made of that object, and keeps it in mind until the stop. False where it is declared or in memory
    /// already.
    fn declare(
        &self,
        kind: usize,
        entity_id: &str,
        behavior: &Bound<'_, PyAny>,
        passivate_after: Option<f64>,
    ) -> PyResult<bool> {
        let (py, engine) = (behavior.py(), self.0.get());
        let kind = engine.kind(py, kind)?;
        let entity = engine.find(py, &kind, entity_id);
        let entity = entity.unwrap_or_else(|| engine.take_in(py, Arc::new(Entity::new(kind, entity_id))));
        Ok(entity.declare(py, behavior, passivate_after.map(kind::nanos)))
    }

    /// Takes that back, if it is still that object.
    fn undeclare(&self, kind: usize, entity_id: &str, behavior: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = behavior.py();
        if let Some(entity) = self.find(py, kind, entity_id)? {
            entity.undeclare(behavior);
            self.0.get().let_go(py, &entity);
        }
        Ok(())
    }

    /// Whether the entity is in memory.
    fn is_resident(&self, py: Python<'_>, kind: usize, entity_id: &str) -> PyResult<bool> {
        Ok(self.find(py, kind, entity_id)?.is_some_and(|entity| entity.is_resident(py)))
    }

    /// How many calls from other loops and threads are under way.
    fn count_visitors(&self, py: Python<'_>) -> u64 {
        self.0.get().run.borrow(py).as_ref().map_or(0, |run| run.visitors.get(py))
    }

    /// How many commands wait for the entity's turn.
    fn count_queued(&self, py: Python<'_>, kind: usize, entity_id: &str) -> PyResult<usize> {
        Ok(self.find(py, kind, entity_id)?.map_or(0, |entity| entity.slot.borrow(py).mailbox().len()))
    }

    /// Whether the entity is declared or in memory.
    fn is_live(&self, py: Python<'_>, kind: usize, entity_id: &str) -> PyResult<bool> {
        let live = |entity: Arc<Entity>| entity.is_resident(py) || !entity.declared(py).is_none();
        Ok(self.find(py, kind, entity_id)?.is_some_and(live))
    }

    /// Looks at the clock that was moved by hand.
    fn look(&self, py: Python<'_>) -> PyResult<()> {
        Engine::look(self.0.bind(py))
    }

    /// The kinds under which the store has something of this id.
    fn stored_kinds(&self, py: Python<'_>, entity_id: &str) -> PyResult<Vec<String>> {
        let run = self.0.get().running(py)?;
        let mut kinds: Vec<_> = run.lanes().flat_map(|lane| lane.journal.kinds_of(entity_id)).collect();
        kinds.sort();
        kinds.dedup();
        Ok(kinds.iter().map(ToString::to_string).collect())
    }

    /// Counters of commands and, while it is started, of its store.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (counters, engine) = (PyDict::new(py), self.0.get());
        let house = &engine.house;
        counters.set_item("accepted", house.accepted.get(py))?;
        counters.set_item("ok", house.ok.get(py))?;
        counters.set_item("rejected", house.rejected.get(py))?;
        counters.set_item("failed", house.failed.get(py))?;
        counters.set_item("queued", house.queued.get(py))?;
        counters.set_item("running", engine.count_running(py))?;
        counters.set_item("resident", house.resident.get(py))?;
        counters.set_item("passivated", house.passivated.get(py))?;
        let run = engine.run.borrow(py).clone();
        if let Some(run) = run {
            counters.set_item("waiting", run.count_waiting(py))?;
            store::fill_stats(&*run.events.journal, &counters)?;
        }
        Ok(counters)
    }

    /// Follows a store from behind a position: the events of these stored names (none: no events; nothing: all), of
    /// these kinds, this entity, this shard; with its states, where they are wanted.
    #[pyo3(signature = (after, *, events, kinds, entity, shard, states, state_store = false))]
    #[expect(clippy::too_many_arguments, reason = "what a filter is made of, by name")]
    fn feed(
        &self,
        py: Python<'_>,
        after: u64,
        events: Option<Vec<String>>,
        kinds: Option<Vec<String>>,
        entity: Option<(String, String)>,
        shard: Option<u16>,
        states: bool,
        state_store: bool,
    ) -> PyResult<Py<Feed>> {
        let engine = self.0.bind(py);
        let run = engine.get().running(py)?;
        let boxed = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect::<Vec<_>>();
        let no_events = events.as_ref().is_some_and(Vec::is_empty);
        let filter = Filter {
            names: events.filter(|names| !names.is_empty()).map(boxed),
            kinds: kinds.map(boxed),
            entity: entity.map(|(kind, id)| EntityKey::new(Arc::from(kind), Arc::from(id))),
            shard,
            events: !no_events,
            states,
        };
        let lane = run.states.as_ref().filter(|_| state_store).unwrap_or(&run.events);
        Feed::open(engine, &run, lane, after, filter)
    }

    /// The position of the last durable event or state.
    fn last_position(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.0.get().running(py)?.events.journal.stats().position)
    }

    /// The id of the store that has the events.
    fn store_id<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.get().running(py)?.events.journal.store_id()))
    }

    /// The last position that was committed before a time, awaitable.
    fn position_at<'py>(&self, py: Python<'py>, nanoseconds: u64) -> PyResult<Bound<'py, PyAny>> {
        let run = self.0.get().running(py)?;
        let journal = Arc::clone(&run.events.journal);
        notes::in_a_thread(py, &run, move |py| {
            let position = py.detach(|| journal.position_at(nanoseconds));
            let position = position.map_err(|failure| error::storage(py, &failure))?;
            Ok(position.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Writes a note, or removes it; the awaitable is done once that is durable. Where it is not `soon`, it goes with the
    /// next batch.
    #[pyo3(signature = (name, value, *, soon))]
    fn note(&self, py: Python<'_>, name: &str, value: Option<&[u8]>, soon: bool) -> PyResult<Py<PyAny>> {
        notes::write(self.0.bind(py), name, value, soon)
    }

    /// The durable notes of which the names start with `prefix`, sorted; awaitable.
    fn notes<'py>(&self, py: Python<'py>, prefix: String) -> PyResult<Bound<'py, PyAny>> {
        notes::read(self.0.bind(py), prefix)
    }

    /// Whether it is between start and stop.
    #[getter]
    fn started(&self, py: Python<'_>) -> bool {
        self.0.get().run.borrow(py).is_some()
    }

    #[getter]
    fn name(&self) -> &str {
        &self.0.get().name
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

/// # Errors
/// `UndefinedEntityError`, `InvalidEntityIdError`.
fn checked_id(py: Python<'_>, kind: &str, id: &Bound<'_, PyAny>) -> PyResult<String> {
    let refuse = |class: &str, message: &str| {
        let facts = PyDict::new(py);
        facts.set_item("kind", kind)?;
        facts.set_item("entity_id", id)?;
        Err(error::raise(py, class, message, &facts))
    };
    let Ok(text) = id.cast::<PyString>() else {
        return refuse("InvalidEntityIdError", &format!("an entity id is a str, not {}", id.get_type().qualname()?));
    };
    let Ok(text) = text.to_str() else {
        return refuse("InvalidEntityIdError", "an entity id is UTF-8 text; this one has surrogates");
    };
    if text.is_empty() {
        return refuse("UndefinedEntityError", "the entity id is empty");
    }
    if text.len() > MAX_NAME_BYTES {
        return refuse(
            "InvalidEntityIdError",
            &format!("an entity id has at most {MAX_NAME_BYTES} bytes, not {}", text.len()),
        );
    }
    if text.chars().any(char::is_control) {
        return refuse("InvalidEntityIdError", &format!("an entity id has no control characters: {text:?}"));
    }
    Ok(text.to_owned())
}
