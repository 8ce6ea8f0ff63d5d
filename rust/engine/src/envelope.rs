//! What a reader is handed: one event or state, and where it stands.
//!
//! Readers are handed hundreds of thousands of them a second, so one is made of what is there already: texts are shared
//! by those that follow each other, and all else becomes a Python object when it is looked at.

use crate::clock;
use crate::cursor::{Cursor, hash_of};
use crate::terms;
use ego_answer::cell::GilCell;
use ego_core::entities::shard::{DEFAULT_SHARDS, entity_hash, shard_of};
use ego_core::journal::MAX_METADATA_BYTES;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateTime, PyDict, PyMappingProxy, PyString, PyTuple};
use pyo3::{PyClassInitializer, PyTraverseError, PyVisit};
use std::sync::Arc;

/// The metadata of one unit.
#[derive(Debug)]
pub struct Carried {
    encoded: Box<[u8]>,
    decoded: GilCell<Option<Py<PyMappingProxy>>>,
}

impl Carried {
    /// That of these bytes; none where there is nothing in them.
    pub fn of(encoded: &[u8]) -> Option<Arc<Self>> {
        (!encoded.is_empty()).then(|| Arc::new(Self { encoded: encoded.into(), decoded: GilCell::default() }))
    }

    fn mapping(&self, py: Python<'_>) -> PyResult<Py<PyMappingProxy>> {
        if let Some(decoded) = &*self.decoded.borrow(py) {
            return Ok(decoded.clone_ref(py));
        }
        let decoded = proxy(py, &self.encoded)?;
        *self.decoded.borrow_mut(py) = Some(decoded.clone_ref(py));
        Ok(decoded)
    }
}

fn proxy(py: Python<'_>, encoded: &[u8]) -> PyResult<Py<PyMappingProxy>> {
    Ok(PyMappingProxy::new(py, terms::dictionary(py, encoded)?.as_mapping()).unbind())
}

/// A text that becomes an object when it is looked at; a short one takes no memory of its own.
#[derive(Debug)]
pub enum Id {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

const SHORT: usize = 22;

impl Id {
    #[inline]
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { len: text.len() as u8, bytes }
            }
            None => Self::Long(text.into()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Short { len, bytes } => {
                let text = bytes.get(..usize::from(*len)).map(std::str::from_utf8);
                text.and_then(Result::ok).unwrap_or_default()
            }
            Self::Long(text) => text,
        }
    }
}

/// Where an event or state stands.
#[derive(Debug)]
pub struct Place {
    pub entity_id: Id,
    pub carried: Option<Arc<Carried>>,
    pub cursor: Cursor,
    pub revision: u64,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    pub version: u32,
    pub shard: u16,
}

/// What an envelope is made of.
#[derive(Debug)]
pub struct Parts {
    /// The event or the state; where it cannot be read, the exception that says why.
    pub value: Py<PyAny>,
    pub kind: Py<PyString>,
    pub name: Py<PyString>,
    pub place: Place,
}

/// An envelope of either class.
#[derive(Clone, Copy)]
struct Seen<'a> {
    value: &'a Py<PyAny>,
    kind: &'a Py<PyString>,
    name: &'a Py<PyString>,
    place: &'a Place,
}

/// The same as a user gives it.
struct Given<'a, 'py> {
    value: Bound<'py, PyAny>,
    entity_id: &'a str,
    kind: &'a str,
    revision: u64,
    position: u64,
    cursor: Option<Cursor>,
    shard: Option<u16>,
    time: Option<&'a Bound<'py, PyAny>>,
    metadata: Option<&'a Bound<'py, PyAny>>,
    name: Option<&'a str>,
    version: Option<u32>,
}

impl Parts {
    fn given(given: Given<'_, '_>) -> PyResult<Self> {
        let Given { value, entity_id, kind, revision, position, cursor, shard, time, metadata, name, version } = given;
        let py = value.py();
        for (what, text) in [("entity_id", entity_id), ("kind", kind), ("name", name.unwrap_or("-"))] {
            if text.is_empty() {
                return Err(PyValueError::new_err(format!("{what} must not be empty")));
            }
        }
        for (what, number) in [("revision", revision), ("position", position), ("version", version.unwrap_or(1).into())]
        {
            if number == 0 {
                return Err(PyValueError::new_err(format!("{what} must be 1 or more, not 0")));
            }
        }
        if cursor.is_some_and(|cursor| cursor.position != position) {
            return Err(PyValueError::new_err("cursor and position must say the same"));
        }
        let encoded = metadata.map(terms::encoded).transpose()?.unwrap_or_default();
        if encoded.len() > MAX_METADATA_BYTES {
            return Err(PyValueError::new_err(format!("metadata takes at most {MAX_METADATA_BYTES} bytes")));
        }
        let (own_name, own_version): (String, u32) =
            py.import("ego._messages")?.getattr("stored_identity")?.call1((value.get_type(),))?.extract()?;
        Ok(Self {
            value: value.unbind(),
            kind: PyString::new(py, kind).unbind(),
            name: PyString::new(py, name.unwrap_or(&own_name)).unbind(),
            place: Place {
                entity_id: Id::new(entity_id),
                carried: Carried::of(&encoded),
                cursor: cursor.unwrap_or(Cursor { store: [0; 16], position }),
                revision,
                time: time.map_or(Ok(0), clock::nanos_of)?,
                version: version.unwrap_or(own_version),
                shard: shard.unwrap_or_else(|| shard_of(entity_hash(entity_id), DEFAULT_SHARDS)),
            },
        })
    }
}

impl Place {
    fn metadata(&self, py: Python<'_>) -> PyResult<Py<PyMappingProxy>> {
        static EMPTY: PyOnceLock<Py<PyMappingProxy>> = PyOnceLock::new();
        match &self.carried {
            Some(carried) => carried.mapping(py),
            None => EMPTY.get_or_try_init(py, || proxy(py, &[])).map(|empty| empty.clone_ref(py)),
        }
    }

    fn encoded(&self) -> &[u8] {
        self.carried.as_ref().map_or(&[][..], |carried| &carried.encoded)
    }
}

impl Seen<'_> {
    fn id(self, py: Python<'_>) -> PyResult<String> {
        let Place { entity_id, revision, .. } = self.place;
        Ok(format!("{}/{}/{revision}", self.kind.bind(py).to_str()?, entity_id.text()))
    }

    fn equals(self, other: Seen<'_>, py: Python<'_>) -> PyResult<bool> {
        let numbers = |place: &Place| (place.cursor, place.revision, place.time, place.version, place.shard);
        let texts = |seen: Seen<'_>| [seen.kind, seen.name].map(|text| text.bind(py).to_string());
        let same = numbers(self.place) == numbers(other.place)
            && texts(self) == texts(other)
            && self.place.entity_id.text() == other.place.entity_id.text();
        let metadata = |seen: Seen<'_>| terms::dictionary(py, seen.place.encoded());
        Ok(same && metadata(self)?.eq(metadata(other)?)? && self.value.bind(py).eq(other.value)?)
    }

    fn hash(self, py: Python<'_>) -> PyResult<u64> {
        Ok(hash_of((self.place.cursor, self.id(py)?)))
    }

    fn shown(self, py: Python<'_>, class: &str, role: &str, value: &str) -> PyResult<String> {
        let (kind, entity_id) = (self.kind.bind(py).repr()?, PyString::new(py, self.place.entity_id.text()).repr()?);
        let (revision, position) = (self.place.revision, self.place.cursor.position);
        Ok(format!(
            "{class}({role}={value}, entity_id={entity_id}, kind={kind}, revision={revision}, position={position})"
        ))
    }

    /// What a copy is made of.
    fn arguments<'py>(self, py: Python<'py>, role: &str) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let (named, place) = (PyDict::new(py), self.place);
        named.set_item(role, self.value)?;
        named.set_item("entity_id", place.entity_id.text())?;
        named.set_item("kind", self.kind)?;
        named.set_item("revision", place.revision)?;
        named.set_item("position", place.cursor.position)?;
        named.set_item("cursor", Bound::new(py, place.cursor)?)?;
        named.set_item("shard", place.shard)?;
        named.set_item("time", clock::utc(py, place.time)?)?;
        named.set_item("metadata", terms::dictionary(py, place.encoded())?)?;
        named.set_item("name", self.name)?;
        named.set_item("version", place.version)?;
        Ok((PyTuple::empty(py), named))
    }
}

/// The exception that an unreadable envelope holds, as it is raised.
fn failure(py: Python<'_>, held: &Py<PyAny>) -> PyErr {
    let failure = PyErr::from_value(held.bind(py).clone());
    failure.set_traceback(py, None);
    failure
}

/// Keeps the collector from looking at an envelope that can be part of no cycle: readers make so many that it would look
/// at each page of them.
#[inline]
fn untrack(envelope: &Bound<'_, PyAny>, value: *mut ffi::PyObject) {
    #[expect(unsafe_code, reason = "measured to take a fifth off reading")]
    // SAFETY: both are live objects, and the envelope is one that the collector knows. A value that it does not look at
    // holds nothing that could lead back, and never will: a dictionary, which may be filled later, is left out.
    unsafe {
        if ffi::PyObject_GC_IsTracked(value) == 0 && ffi::PyDict_Check(value) == 0 {
            ffi::PyObject_GC_UnTrack(envelope.as_ptr().cast());
        }
    }
}

macro_rules! envelope {
    ($(#[$doc:meta])* $class:ident, $unreadable:ident, $role:ident, $text:literal) => {
        $(#[$doc])*
        #[pyclass(frozen, subclass, generic, module = "ego")]
        #[derive(Debug)]
        pub struct $class {
            #[doc = concat!("The ", $text, ". Raises why, where what is stored cannot be read.")]
            #[pyo3(get, name = $text)]
            value: Py<PyAny>,
            /// The entity's kind.
            #[pyo3(get)]
            kind: Py<PyString>,
            /// The stored name of its type.
            #[pyo3(get)]
            name: Py<PyString>,
            place: Place,
        }

        impl $class {
            fn of(Parts { value, kind, name, place }: Parts) -> Self {
                Self { value, kind, name, place }
            }

            fn seen(&self) -> Seen<'_> {
                Seen { value: &self.value, kind: &self.kind, name: &self.name, place: &self.place }
            }

            /// One that is handed out.
            ///
            /// # Errors
            /// There is no memory.
            #[inline]
            pub fn make<'py>(py: Python<'py>, parts: Parts) -> PyResult<Bound<'py, PyAny>> {
                let value = parts.value.as_ptr();
                let made = Bound::new(py, Self::of(parts))?.into_any();
                untrack(&made, value);
                Ok(made)
            }

            /// One whose value is the exception that says why it cannot be read.
            ///
            /// # Errors
            /// There is no memory.
            #[cold]
            pub fn make_unreadable<'py>(py: Python<'py>, parts: Parts) -> PyResult<Bound<'py, PyAny>> {
                let made = PyClassInitializer::from(Self::of(parts)).add_subclass($unreadable);
                Ok(Bound::new(py, made)?.into_any())
            }
        }

        /// One that cannot be read.
        #[pyclass(frozen, extends = $class, module = "ego._native")]
        pub struct $unreadable;

        #[pymethods]
        impl $unreadable {
            #[getter]
            fn $role(slf: &Bound<'_, Self>) -> PyResult<()> {
                Err(failure(slf.py(), &slf.as_super().get().value))
            }

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                slf.as_super().get().seen().shown(slf.py(), stringify!($class), stringify!($role), "<unreadable>")
            }

            fn __getnewargs_ex__(slf: &Bound<'_, Self>) -> PyResult<()> {
                Err(failure(slf.py(), &slf.as_super().get().value))
            }
        }

        #[pymethods]
        impl $class {
            #[new]
            #[pyo3(signature = (
                *, $role, entity_id = "1", kind = "test", revision = 1, position = 1, cursor = None, shard = None,
                time = None, metadata = None, name = None, version = None
            ))]
            #[expect(clippy::too_many_arguments, reason = "keyword arguments of one constructor")]
            fn new<'py>(
                $role: Bound<'py, PyAny>,
                entity_id: &str,
                kind: &str,
                revision: u64,
                position: u64,
                cursor: Option<PyRef<'py, Cursor>>,
                shard: Option<u16>,
                time: Option<Bound<'py, PyAny>>,
                metadata: Option<Bound<'py, PyAny>>,
                name: Option<&str>,
                version: Option<u32>,
            ) -> PyResult<Self> {
                let (value, cursor) = ($role, cursor.map(|cursor| *cursor));
                let (time, metadata) = (time.as_ref(), metadata.as_ref());
                Parts::given(Given {
                    value, entity_id, kind, revision, position, cursor, shard, time, metadata, name, version,
                })
                .map(Self::of)
            }

            /// The entity's id.
            #[getter]
            fn entity_id(&self) -> &str {
                self.place.entity_id.text()
            }

            /// The entity's revision with it, from 1.
            #[getter]
            fn revision(&self) -> u64 {
                self.place.revision
            }

            /// Its place in the store, from 1.
            #[getter]
            fn position(&self) -> u64 {
                self.place.cursor.position
            }

            /// Its place as a reader keeps it.
            #[getter]
            fn cursor(&self) -> Cursor {
                self.place.cursor
            }

            /// The entity's shard.
            #[getter]
            fn shard(&self) -> u16 {
                self.place.shard
            }

            /// When it was committed, in UTC.
            #[getter]
            fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
                clock::utc(py, self.place.time)
            }

            /// What was given with the command, and what it inherited.
            #[getter]
            fn metadata(&self, py: Python<'_>) -> PyResult<Py<PyMappingProxy>> {
                self.place.metadata(py)
            }

            /// The stored version of its type.
            #[getter]
            fn version(&self) -> u32 {
                self.place.version
            }

            /// "kind/entity_id/revision": the same whenever it is delivered.
            #[getter]
            fn id(&self, py: Python<'_>) -> PyResult<String> {
                self.seen().id(py)
            }

            fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
                let py = other.py();
                let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
                Ok(self.seen().equals(other.get().seen(), py)?.into_pyobject(py)?.to_owned().into_any().unbind())
            }

            fn __hash__(&self, py: Python<'_>) -> PyResult<u64> {
                self.seen().hash(py)
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                let value = self.value.bind(py).repr()?;
                self.seen().shown(py, stringify!($class), stringify!($role), &value.to_string())
            }

            fn __getnewargs_ex__<'py>(
                &self,
                py: Python<'py>,
            ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
                self.seen().arguments(py, stringify!($role))
            }

            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                visit.call(&self.value)
            }
        }
    };
}

envelope! {
    /// An event, and where it stands. The engine makes them; a test makes them of an event and what else matters to it.
    EventEnvelope, UnreadableEvent, event, "event"
}

envelope! {
    /// A durable state as one command left it, and where it stands. Like an `EventEnvelope`.
    StateEnvelope, UnreadableState, state, "state"
}
