//! A kind of entity: the user's functions, kept as plain callables, and what they may take and return.
//!
//! Types are recognised by their address; only what is not found so is asked about with `isinstance`.

use crate::entity::House;
use crate::error;
use ego_answer::call::Function;
use ego_answer::fast::attached;
use ego_core::entities::commands::Retention;
use ego_core::journal::EntityKey;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;

/// The stored identity of one event or state type.
#[derive(Debug)]
pub struct StoredType {
    class: Py<PyAny>,
    pub name: String,
    pub version: u32,
}

#[derive(Debug)]
pub struct Decoder {
    name: String,
    version: u32,
    pub decode: Function,
}

#[derive(Debug)]
pub struct Kind {
    /// Its place among the kinds of its engine.
    pub number: usize,
    /// That of its engine.
    pub house: Arc<House>,
    pub name: Arc<str>,
    pub is_durable_state: bool,
    pub behavior: Py<PyAny>,
    pub create: Function,
    pub handle_command: Function,
    pub handle_event: Function,
    pub initial_state: Function,
    pub encode: Function,
    /// Encodes a command the same way whenever it is equal.
    pub fingerprint: Function,
    /// Which commands are remembered.
    pub retention: Retention,
    /// Nanoseconds without a command after which an entity leaves memory.
    pub passivate_after: Option<u64>,
    state_types: Vec<Py<PyAny>>,
    command_types: Option<Vec<Py<PyAny>>>,
    /// Their names, in the same order.
    command_names: Vec<String>,
    /// Sorted by the address of the class.
    stored_types: Vec<StoredType>,
    /// Sorted by name and version.
    decoders: Vec<Decoder>,
}

/// Whether the exact type of an object is one of these.
#[inline]
fn is_exactly(object: &Bound<'_, PyAny>, types: &[Py<PyAny>]) -> bool {
    let class = object.get_type_ptr().cast();
    types.iter().any(|held| held.as_ptr() == class)
}

/// Whether an object is an instance of one of these types.
fn is_one_of(object: &Bound<'_, PyAny>, types: &[Py<PyAny>]) -> PyResult<bool> {
    for held in types {
        if object.is_instance(held.bind(object.py()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().fully_qualified_name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

fn names(py: Python<'_>, types: &[Py<PyAny>]) -> String {
    let name = |class: &Py<PyAny>| {
        class.bind(py).cast::<PyType>().ok().and_then(|class| class.qualname().ok()).map(|name| name.to_string())
    };
    types.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

impl Kind {
    /// The stored identity of an event or a durable state, or none where its exact type is not declared.
    #[inline]
    pub fn stored_type(&self, event: &Bound<'_, PyAny>) -> Option<&StoredType> {
        let class: *mut pyo3::ffi::PyObject = event.get_type_ptr().cast();
        match &*self.stored_types {
            [only] => (only.class.as_ptr() == class).then_some(only),
            several => {
                let found = several.binary_search_by_key(&class, |held| held.class.as_ptr()).ok()?;
                several.get(found)
            }
        }
    }

    /// The decoder of a stored event type.
    pub fn decoder(&self, name: &str, version: u32) -> Option<&Decoder> {
        let index = self.decoders.binary_search_by(|held| (&*held.name, held.version).cmp(&(name, version))).ok()?;
        self.decoders.get(index)
    }

    /// # Errors
    /// `UnhandledCommandError`: the command is of no declared type.
    #[inline]
    pub fn check_command(&self, command: &Bound<'_, PyAny>, entity: &EntityKey) -> PyResult<()> {
        match &self.command_types {
            Some(types) if !is_exactly(command, types) => attached(|_| self.no_command(command, types, entity)),
            _ => Ok(()),
        }
    }

    /// The name of a command's exact type, where it is declared.
    pub fn command_name(&self, command: &Bound<'_, PyAny>) -> Option<&str> {
        let class = command.get_type_ptr().cast();
        let index = self.command_types.as_ref()?.iter().position(|held| held.as_ptr() == class)?;
        self.command_names.get(index).map(String::as_str)
    }

    #[cold]
    fn no_command(&self, command: &Bound<'_, PyAny>, types: &[Py<PyAny>], entity: &EntityKey) -> PyResult<()> {
        if is_one_of(command, types)? {
            return Ok(());
        }
        let py = command.py();
        let message = format!("takes {}, not {}", names(py, types), type_name(command));
        Err(error::about(py, "UnhandledCommandError", entity, &message))
    }

    /// # Errors
    /// `HandlerResultError`: what `function` returned is no state of this kind.
    #[inline]
    pub fn check_state(&self, state: &Bound<'_, PyAny>, entity: &EntityKey, function: &str) -> PyResult<()> {
        if is_exactly(state, &self.state_types) { Ok(()) } else { attached(|_| self.no_state(state, entity, function)) }
    }

    #[cold]
    fn no_state(&self, state: &Bound<'_, PyAny>, entity: &EntityKey, function: &str) -> PyResult<()> {
        if is_one_of(state, &self.state_types)? {
            return Ok(());
        }
        let py = state.py();
        let (found, wanted) = (type_name(state), names(py, &self.state_types));
        let message = format!("{function} returned {found} where a state is wanted: {wanted}");
        Err(error::about(py, "HandlerResultError", entity, &message))
    }

    /// What to raise where `handle_command` returned something that is no event.
    pub fn no_event(&self, found: &Bound<'_, PyAny>, entity: &EntityKey) -> PyErr {
        let py = found.py();
        let declared: Vec<_> = self.stored_types.iter().map(|held| held.class.clone_ref(py)).collect();
        let message = format!(
            "handle_command gave {} where an event is wanted: {}; return one event, a list or tuple of events, or None",
            type_name(found),
            names(py, &declared)
        );
        error::about(py, "HandlerResultError", entity, &message)
    }

    /// A copy for an engine, with a number and with references of its own: what one owner alone holds can be collected
    /// with it.
    pub fn numbered(&self, py: Python<'_>, number: usize, house: &Arc<House>) -> Self {
        let all = |held: &[Py<PyAny>]| held.iter().map(|one| one.clone_ref(py)).collect::<Vec<_>>();
        let stored_type = |held: &StoredType| StoredType {
            class: held.class.clone_ref(py),
            name: held.name.clone(),
            version: held.version,
        };
        let decoder = |held: &Decoder| Decoder {
            name: held.name.clone(),
            version: held.version,
            decode: held.decode.clone_ref(py),
        };
        Self {
            number,
            house: Arc::clone(house),
            name: Arc::clone(&self.name),
            is_durable_state: self.is_durable_state,
            behavior: self.behavior.clone_ref(py),
            create: self.create.clone_ref(py),
            handle_command: self.handle_command.clone_ref(py),
            handle_event: self.handle_event.clone_ref(py),
            initial_state: self.initial_state.clone_ref(py),
            encode: self.encode.clone_ref(py),
            fingerprint: self.fingerprint.clone_ref(py),
            retention: self.retention,
            passivate_after: self.passivate_after,
            state_types: all(&self.state_types),
            command_types: self.command_types.as_deref().map(all),
            command_names: self.command_names.clone(),
            stored_types: self.stored_types.iter().map(stored_type).collect(),
            decoders: self.decoders.iter().map(decoder).collect(),
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.behavior)?;
        for held in [
            &self.create,
            &self.handle_command,
            &self.handle_event,
            &self.initial_state,
            &self.encode,
            &self.fingerprint,
        ] {
            visit.call(&held.object)?;
        }
        for held in self.state_types.iter().chain(self.command_types.iter().flatten()) {
            visit.call(held)?;
        }
        for held in &self.stored_types {
            visit.call(&held.class)?;
        }
        for held in &self.decoders {
            visit.call(&held.decode.object)?;
        }
        Ok(())
    }
}

/// What the Python layer found out about a kind.
#[pyclass(frozen, module = "ego._native")]
pub struct KindSpec(pub Kind);

fn class_names(given: &Bound<'_, PyTuple>) -> PyResult<Vec<String>> {
    given.iter().map(|class| Ok(class.cast_into::<PyType>()?.qualname()?.to_str()?.to_owned())).collect()
}

fn types(given: &Bound<'_, PyTuple>) -> PyResult<Vec<Py<PyAny>>> {
    given.iter().map(|class| Ok(class.cast_into::<PyType>()?.into_any().unbind())).collect()
}

/// Nanoseconds of a number of seconds that was checked.
pub fn nanos(seconds: f64) -> u64 {
    let duration = std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX);
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[pymethods]
impl KindSpec {
    #[new]
    #[pyo3(signature = (
        *, name, behavior, is_durable_state, create, handle_command, handle_event, initial_state, state_types,
        command_types, stored_names, decoders, encode, fingerprint, keep_command_ids, keep_command_ids_for,
        passivate_after
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of one constructor, called from one place")]
    fn new(
        name: &str,
        behavior: &Bound<'_, PyType>,
        is_durable_state: bool,
        create: Py<PyAny>,
        handle_command: Py<PyAny>,
        handle_event: Py<PyAny>,
        initial_state: Py<PyAny>,
        state_types: &Bound<'_, PyTuple>,
        command_types: Option<&Bound<'_, PyTuple>>,
        stored_names: &Bound<'_, PyDict>,
        decoders: &Bound<'_, PyDict>,
        encode: Py<PyAny>,
        fingerprint: Py<PyAny>,
        keep_command_ids: usize,
        keep_command_ids_for: f64,
        passivate_after: Option<f64>,
    ) -> PyResult<Self> {
        if name.is_empty() || name.len() > ego_core::journal::MAX_NAME_BYTES {
            return Err(PyValueError::new_err("a kind's name has 1 to 255 bytes"));
        }
        let py = behavior.py();
        let mut stored_types = Vec::with_capacity(stored_names.len());
        for (class, stored) in stored_names {
            let (name, version) = stored.extract()?;
            stored_types.push(StoredType { class: class.unbind(), name, version });
        }
        stored_types.sort_by_key(|held| held.class.as_ptr());
        let mut sorted = Vec::with_capacity(decoders.len());
        for (stored, decode) in decoders {
            let (name, version) = stored.extract()?;
            sorted.push(Decoder { name, version, decode: Function::new(py, decode.unbind()) });
        }
        sorted.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        Ok(Self(Kind {
            number: 0,
            house: Arc::default(),
            name: Arc::from(name),
            is_durable_state,
            behavior: behavior.clone().into_any().unbind(),
            create: Function::new(py, create),
            handle_command: Function::new(py, handle_command),
            handle_event: Function::new(py, handle_event),
            initial_state: Function::new(py, initial_state),
            encode: Function::new(py, encode),
            fingerprint: Function::new(py, fingerprint),
            retention: Retention { count: keep_command_ids, age: nanos(keep_command_ids_for) },
            passivate_after: passivate_after.map(nanos),
            state_types: types(state_types)?,
            command_names: command_types.map(class_names).transpose()?.unwrap_or_default(),
            command_types: command_types.map(types).transpose()?,
            stored_types,
            decoders: sorted,
        }))
    }

    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn behavior(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.behavior.clone_ref(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.traverse(visit)
    }
}
