//! A reader of a store as Python holds it: what is durable, one envelope after the other, and a wake when there is more.
//!
//! It belongs to the loop that made it and to one run of the engine. Events are decoded as a replay decodes them, when
//! they are taken; what cannot be read is handed out all the same and says so when it is looked at. All feeds of a run are
//! woken by the bell that shows answers, and only those for which something has passed the filter.

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::envelope::{Carried, EventEnvelope, Id, Parts, Place, StateEnvelope};
use crate::error;
use crate::payload::Payload;
use crate::run::{Lane, Run};
use crate::unreadable::Stored;
use ego_answer::answer::{Answer, Phase};
use ego_answer::call::Function;
use ego_answer::cell::{GilCell, GilValue};
use ego_answer::wake;
use ego_core::StoreError;
use ego_core::feed::{Chunk, FeedEvent, Filter, Follower};
use ego_core::io::Slice;
use ego_core::journal::{EntityKey, Journal, StoredEvent, Wait};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList, PyString};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// How far a look ahead goes, in events and states.
const KNOWN: usize = 65_536;

/// A reader of one store.
#[pyclass(frozen, weakref, module = "ego._native")]
pub struct Feed {
    engine: Py<Engine>,
    run: Weak<Run>,
    journal: Arc<dyn Journal>,
    event_loop: Py<PyAny>,
    /// None while somebody takes from it, and once it is closed.
    reading: GilCell<Option<Box<Reading>>>,
    is_closed: GilValue<bool>,
    waiters: GilCell<Vec<Answer>>,
    is_listening: GilValue<bool>,
}

/// Where a feed stands.
struct Reading {
    follower: Box<dyn Follower>,
    /// What is known to wait; none of them is exhausted.
    chunks: VecDeque<Chunk>,
    /// Place in the first chunk.
    next: usize,
    waiting: usize,
    failure: Option<StoreError>,
    names: Names,
}

/// The objects that what follows each other shares.
struct Names {
    store: [u8; 16],
    types: Vec<Type>,
    /// That of the last event.
    last: usize,
    carried: Option<Arc<Carried>>,
}

/// A stored type of a kind, and what reads it.
struct Type {
    kind: Box<str>,
    name: Box<str>,
    version: u32,
    kind_object: Py<PyString>,
    name_object: Py<PyString>,
    decode: Function,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Something that can be taken, or raised.
    Something,
    Nothing,
    /// Nothing yet, and time is over.
    NothingYet,
}

impl Names {
    /// An event or state as it is handed out.
    ///
    /// # Errors
    /// What is no `Exception`.
    #[inline]
    fn envelope<'py>(
        &mut self,
        engine: &Bound<'py, Engine>,
        bytes: &mut Payload<'py>,
        found: &FeedEvent<'_>,
        begins_unit: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, event) = (engine.py(), &found.event);
        if begins_unit {
            self.carried = Carried::of(event.metadata);
        }
        let (kind, name, read) = match self.type_of(engine, found) {
            Ok(known) => {
                let read = known.decode.call(py, [bytes.of(py, event.payload)]);
                let read = read.map_err(|failure| stored(found, &key_of(found)).undecoded(py, failure));
                (known.kind_object.clone_ref(py), known.name_object.clone_ref(py), read)
            }
            Err(is_registered) => {
                let unknown = stored(found, &key_of(found)).unknown(py, is_registered);
                (PyString::new(py, found.kind).unbind(), PyString::new(py, event.name).unbind(), Err(unknown))
            }
        };
        let (value, is_readable) = match read {
            Ok(value) => (value.unbind(), true),
            Err(failure) if failure.is_instance_of::<PyException>(py) => (failure.into_value(py).into_any(), false),
            Err(failure) => return Err(failure),
        };
        let parts = Parts {
            value,
            kind,
            name,
            place: Place {
                entity_id: Id::new(found.id),
                carried: self.carried.clone(),
                cursor: Cursor { store: self.store, position: event.position },
                revision: event.revision,
                time: event.time,
                version: event.version,
                shard: found.shard,
            },
        };
        match (is_readable, event.is_state) {
            (true, false) => EventEnvelope::make(py, parts),
            (true, true) => StateEnvelope::make(py, parts),
            (false, false) => EventEnvelope::make_unreadable(py, parts),
            (false, true) => StateEnvelope::make_unreadable(py, parts),
        }
    }

    /// The stored type of an event; where no kind declares it, whether its kind is registered.
    #[inline]
    fn type_of(&mut self, engine: &Bound<'_, Engine>, found: &FeedEvent<'_>) -> Result<&Type, bool> {
        let is_one = |held: &Type| {
            held.version == found.event.version && *held.name == *found.event.name && *held.kind == *found.kind
        };
        if !self.types.get(self.last).is_some_and(is_one) {
            self.last = match self.types.iter().position(is_one) {
                Some(known) => known,
                None => {
                    self.types.push(Type::find(engine, found)?);
                    self.types.len() - 1
                }
            };
        }
        self.types.get(self.last).ok_or(false)
    }
}

#[cold]
fn key_of(found: &FeedEvent<'_>) -> EntityKey {
    EntityKey::new(Arc::from(found.kind), Arc::from(found.id))
}

fn stored<'a>(found: &FeedEvent<'a>, entity: &'a EntityKey) -> Stored<'a> {
    let StoredEvent { name, version, revision, is_state, .. } = found.event;
    Stored { entity, is_state, name, version, revision }
}

impl Type {
    fn find(engine: &Bound<'_, Engine>, found: &FeedEvent<'_>) -> Result<Self, bool> {
        let (py, event) = (engine.py(), &found.event);
        let kind = engine.get().kind_named(py, found.kind).ok_or(false)?;
        let fits = kind.is_durable_state == event.is_state;
        let decoder = kind.decoder(event.name, event.version).filter(|_| fits).ok_or(true)?;
        Ok(Self {
            kind: found.kind.into(),
            name: event.name.into(),
            version: event.version,
            kind_object: PyString::intern(py, found.kind).unbind(),
            name_object: PyString::intern(py, event.name).unbind(),
            decode: decoder.decode.clone_ref(py),
        })
    }
}

impl Reading {
    /// Looks ahead until `wanted` are known to wait.
    fn look(&mut self, journal: &dyn Journal, wanted: usize, slice: &mut Slice) -> Found {
        while self.waiting < wanted && self.failure.is_none() {
            match self.follower.next(Wait::Never) {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.waiting += chunk.len();
                    self.chunks.push_back(chunk);
                }
                Ok(None) => {
                    // Nothing more will ever come.
                    self.failure = journal.poisoned();
                    break;
                }
                Err(failure) => self.failure = Some(failure),
            }
            if slice.is_over_now() && self.waiting < wanted {
                return if self.waiting > 0 { Found::Something } else { Found::NothingYet };
            }
        }
        if self.waiting > 0 || self.failure.is_some() { Found::Something } else { Found::Nothing }
    }

    fn take<'py>(&mut self, engine: &Bound<'py, Engine>, limit: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut taken = Vec::with_capacity(limit.min(self.waiting));
        let mut bytes = Payload::default();
        let mut next = self.next;
        let mut begins_unit = true;
        for chunk in &self.chunks {
            while taken.len() < limit
                && let Some(event) = chunk.get(next)
            {
                taken.push(self.names.envelope(engine, &mut bytes, &event, begins_unit)?);
                begins_unit = event.ends_unit;
                next += 1;
            }
            next = 0;
        }
        self.skip(taken.len());
        Ok(taken)
    }

    /// Lets go of the oldest.
    fn skip(&mut self, count: usize) {
        self.waiting = self.waiting.saturating_sub(count);
        self.next += count;
        while let Some(first) = self.chunks.front().filter(|first| first.len() <= self.next) {
            self.next -= first.len();
            self.chunks.pop_front();
        }
    }

    fn position(&self) -> u64 {
        let next = self.chunks.front().and_then(|chunk| chunk.get(self.next));
        next.map_or_else(|| self.follower.position(), |next| next.event.position - 1)
    }
}

impl Feed {
    /// Follows a store of the run from behind a position.
    ///
    /// # Errors
    /// `StorageError`; there is no loop.
    pub fn open(
        engine: &Bound<'_, Engine>,
        run: &Arc<Run>,
        lane: &Lane,
        after: u64,
        filter: Filter,
    ) -> PyResult<Py<Self>> {
        let py = engine.py();
        let journal = Arc::clone(&lane.journal);
        let follower = Arc::clone(&journal).follow(after, filter, Arc::clone(&run.wake));
        let follower = follower.map_err(|failure| error::storage(py, &failure))?;
        let names = Names { store: journal.store_id(), types: Vec::new(), last: 0, carried: None };
        let reading = Reading { follower, chunks: VecDeque::new(), next: 0, waiting: 0, failure: None, names };
        let feed = Self {
            engine: engine.clone().unbind(),
            run: Arc::downgrade(run),
            journal,
            event_loop: wake::running_loop(py)?.unbind(),
            reading: GilCell::new(Some(Box::new(reading))),
            is_closed: GilValue::default(),
            waiters: GilCell::default(),
            is_listening: GilValue::default(),
        };
        Py::new(py, feed)
    }

    /// The run that it belongs to, unless it has ended.
    fn run(&self, py: Python<'_>) -> Option<Arc<Run>> {
        let run = self.run.upgrade().filter(|run| !run.is_over.get(py) && !self.is_closed.get(py));
        if run.is_none() {
            let reading = self.reading.borrow_mut(py).take();
            drop(reading);
        }
        run
    }

    /// Refuses whoever is elsewhere.
    #[inline]
    fn check_loop(&self, py: Python<'_>, run: &Run) -> PyResult<()> {
        match run.home.elsewhere(py)? {
            None if self.event_loop.is(&run.home.event_loop) => Ok(()),
            Some(running) if running.is(&self.event_loop) => Ok(()),
            _ => match self.journal.poisoned() {
                // Newer interpreters have no running loop in a forked child.
                Some(forked @ StoreError::Forked { .. }) => Err(error::storage(py, &forked)),
                _ => Err(PyRuntimeError::new_err("a feed belongs to the event loop that made it; use it there")),
            },
        }
    }

    fn is_ready(&self, py: Python<'_>, slice: &mut Slice) -> Found {
        match &mut *self.reading.borrow_mut(py) {
            Some(reading) => reading.look(&*self.journal, 1, slice),
            None => Found::Something,
        }
    }

    /// Does something with what waits; nothing where it has ended.
    fn with_reading<R>(&self, py: Python<'_>, body: impl FnOnce(&mut Reading) -> PyResult<R>) -> PyResult<Option<R>> {
        let Some(run) = self.run(py) else { return Ok(None) };
        self.check_loop(py, &run)?;
        let taken = self.reading.borrow_mut(py).take();
        let Some(mut reading) = taken else {
            return Err(PyRuntimeError::new_err("a feed cannot be used by what it calls"));
        };
        let done = body(&mut reading);
        if !self.is_closed.get(py) {
            *self.reading.borrow_mut(py) = Some(reading);
        }
        done.map(Some)
    }

    /// Has everybody who waits go on.
    fn tell(&self, py: Python<'_>, is_ready: bool, step: bool) -> PyResult<()> {
        self.is_listening.set(py, false);
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut(py));
        let mut result = Ok(());
        for waiter in waiters {
            waiter.prepare(py, Ok(PyBool::new(py, is_ready).to_owned().into_any()));
            result = result.and(waiter.show(py, step));
        }
        result
    }
}

/// Wakes the feeds for which there is something. Only from a callback of the loop.
///
/// # Errors
/// What a waiting task may not swallow.
pub fn go_on(py: Python<'_>, run: &Run) -> PyResult<()> {
    if run.listening.borrow(py).is_empty() {
        return Ok(());
    }
    let mut slice = Slice::new();
    let listening = std::mem::take(&mut *run.listening.borrow_mut(py));
    let (mut ready, mut waiting) = (Vec::new(), Vec::with_capacity(listening.len()));
    for feed in listening {
        let inner = feed.get();
        if inner.waiters.borrow(py).iter().all(|waiter| waiter.is_done(py)) {
            inner.is_listening.set(py, false);
            continue;
        }
        match inner.is_ready(py, &mut slice) {
            Found::Something => ready.push(feed),
            Found::Nothing => waiting.push(feed),
            Found::NothingYet => {
                waiting.push(feed);
                run.bell.ring();
            }
        }
    }
    run.listening.borrow_mut(py).extend(waiting);
    let mut result = Ok(());
    for feed in ready {
        result = result.and(feed.get().tell(py, true, true));
    }
    result
}

/// Ends every feed that somebody waits for, since the run is over; the others see that by themselves.
///
/// # Errors
/// What the loop raises.
pub fn end(py: Python<'_>, run: &Run) -> PyResult<()> {
    let listening = std::mem::take(&mut *run.listening.borrow_mut(py));
    let mut result = Ok(());
    for feed in listening {
        result = result.and(feed.get().tell(py, false, false));
    }
    result
}

#[pymethods]
impl Feed {
    /// What is ready, at most `limit` of it. Waits for nothing. With more than 300 the collector looks at each page, since
    /// it then holds more new objects than its first threshold.
    fn take<'py>(slf: &Bound<'py, Self>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let (py, inner) = (slf.py(), slf.get());
        let taken = inner.with_reading(py, |reading| {
            if reading.waiting < limit {
                reading.look(&*inner.journal, limit, &mut Slice::new());
            }
            match reading.failure.take_if(|_| reading.waiting == 0) {
                Some(failure) => Err(error::storage(py, &failure)),
                None => reading.take(inner.engine.bind(py), limit),
            }
        })?;
        PyList::new(py, taken.unwrap_or_default())
    }

    /// Whether there is something to take or to raise, once there is; False once it has ended.
    fn ready(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, inner) = (slf.py(), slf.get());
        let run = inner.run(py);
        let found = match &run {
            None => None,
            Some(run) => {
                inner.check_loop(py, run)?;
                Some(inner.is_ready(py, &mut Slice::new()))
            }
        };
        let at_home = run.as_ref().is_some_and(|run| inner.event_loop.is(&run.home.event_loop));
        let answer = if at_home {
            Answer::pending(py, &inner.event_loop, Phase::Writing, 0)?
        } else {
            Answer::elsewhere(py, inner.event_loop.bind(py), Phase::Writing, 0)?
        };
        match (run, found) {
            (Some(run), Some(Found::Nothing | Found::NothingYet)) => {
                inner.waiters.borrow_mut(py).retain(|waiter| !waiter.is_done(py));
                inner.waiters.borrow_mut(py).push(answer.clone_ref(py));
                if !inner.is_listening.get(py) {
                    inner.is_listening.set(py, true);
                    run.listening.borrow_mut(py).push(slf.clone().unbind());
                }
                if found == Some(Found::NothingYet) {
                    run.bell.ring();
                }
            }
            (run, _) => {
                answer.prepare(py, Ok(PyBool::new(py, run.is_some()).to_owned().into_any()));
                answer.show(py, false)?;
            }
        }
        Ok(answer.into_any())
    }

    /// Everything up to this position was taken or did not match.
    #[getter]
    fn position(&self, py: Python<'_>) -> u64 {
        self.reading.borrow(py).as_ref().map_or(0, |reading| reading.position())
    }

    /// How many wait that are known of, looking ahead.
    fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        let pending = self.with_reading(py, |reading| {
            reading.look(&*self.journal, KNOWN, &mut Slice::new());
            Ok(reading.waiting)
        })?;
        Ok(pending.unwrap_or_default())
    }

    /// Leaves the oldest of those that are known of out; how many there were.
    fn drop(&self, py: Python<'_>, count: usize) -> PyResult<usize> {
        let dropped = self.with_reading(py, |reading| {
            let count = count.min(reading.waiting);
            reading.skip(count);
            Ok(count)
        })?;
        Ok(dropped.unwrap_or_default())
    }

    /// Ends it: whoever waits in `ready` gets False.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.is_closed.set(py, true);
        let reading = self.reading.borrow_mut(py).take();
        drop(reading);
        if let Some(run) = self.run.upgrade() {
            let (mut gone, mut kept) = (Vec::new(), Vec::new());
            let listening = std::mem::take(&mut *run.listening.borrow_mut(py));
            for feed in listening {
                if std::ptr::eq(feed.get(), self) { gone.push(feed) } else { kept.push(feed) }
            }
            run.listening.borrow_mut(py).extend(kept);
        }
        self.tell(py, false, false)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let state = if self.run(py).is_some() { "open" } else { "ended" };
        format!("<ego feed, {state}, at position {}>", self.position(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        visit.call(&self.event_loop)?;
        for waiter in self.waiters.in_traverse().iter().flat_map(|waiters| waiters.iter()) {
            visit.call(waiter.held())?;
        }
        let reading = self.reading.in_traverse();
        let types = reading.iter().filter_map(|reading| reading.as_ref()).flat_map(|reading| &reading.names.types);
        for held in types {
            visit.call(&held.decode.object)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            let reading = self.reading.borrow_mut(py).take();
            let waiters = std::mem::take(&mut *self.waiters.borrow_mut(py));
            drop((reading, waiters));
        });
    }
}
