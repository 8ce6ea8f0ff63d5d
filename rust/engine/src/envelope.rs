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
use ego_core::metadata;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDateTime, PyDict, PyMappingProxy, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
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

/// What events and states have in common.
#[derive(Debug)]
pub struct Envelope {
    /// The event or the state; where it cannot be read, the exception that says why.
    pub value: Py<PyAny>,
    pub is_readable: bool,
    pub kind: Py<PyString>,
    pub entity_id: Py<PyString>,
    pub name: Py<PyString>,
    pub carried: Option<Arc<Carried>>,
    pub cursor: Cursor,
    pub revision: u64,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    pub version: u32,
    pub shard: u16,
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

impl Envelope {
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
            is_readable: true,
            kind: PyString::new(py, kind).unbind(),
            entity_id: PyString::new(py, entity_id).unbind(),
            name: PyString::new(py, name.unwrap_or(&own_name)).unbind(),
            carried: Carried::of(&encoded),
            cursor: cursor.unwrap_or(Cursor { store: [0; 16], position }),
            revision,
            time: time.map_or(Ok(0), clock::nanos_of)?,
            version: version.unwrap_or(own_version),
            shard: shard.unwrap_or_else(|| shard_of(entity_hash(entity_id), DEFAULT_SHARDS)),
        })
    }

    #[inline]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.is_readable { Ok(self.value.clone_ref(py)) } else { Err(self.failure(py)) }
    }

    #[cold]
    fn failure(&self, py: Python<'_>) -> PyErr {
        let failure = PyErr::from_value(self.value.bind(py).clone());
        failure.set_traceback(py, None);
        failure
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<Py<PyMappingProxy>> {
        static EMPTY: PyOnceLock<Py<PyMappingProxy>> = PyOnceLock::new();
        match &self.carried {
            Some(carried) => carried.mapping(py),
            None => EMPTY.get_or_try_init(py, || proxy(py, &[])).map(|empty| empty.clone_ref(py)),
        }
    }

    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("{}/{}/{}", self.kind.bind(py).to_str()?, self.entity_id.bind(py).to_str()?, self.revision))
    }

    fn equals(&self, other: &Self, py: Python<'_>) -> PyResult<bool> {
        let numbers = |held: &Self| (held.cursor, held.revision, held.time, held.version, held.shard, held.is_readable);
        let texts = |held: &Self| [&held.kind, &held.entity_id, &held.name].map(|text| text.bind(py).to_string());
        let pairs = |held: &Self| -> Vec<(String, String)> {
            let encoded = held.carried.as_ref().map_or(&[][..], |carried| &carried.encoded);
            let mut pairs: Vec<_> = metadata::pairs(encoded).iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            pairs.sort();
            pairs
        };
        if numbers(self) != numbers(other) || texts(self) != texts(other) || pairs(self) != pairs(other) {
            return Ok(false);
        }
        self.value.bind(py).eq(&other.value)
    }

    fn hash(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(hash_of((self.cursor, self.id(py)?)))
    }

    fn shown(&self, py: Python<'_>, class: &str, role: &str) -> PyResult<String> {
        let value = if self.is_readable { self.value.bind(py).repr()?.to_string() } else { "<unreadable>".to_owned() };
        let (kind, entity_id) = (self.kind.bind(py).repr()?, self.entity_id.bind(py).repr()?);
        let (revision, position) = (self.revision, self.cursor.position);
        Ok(format!(
            "{class}({role}={value}, entity_id={entity_id}, kind={kind}, revision={revision}, position={position})"
        ))
    }

    /// What a copy is made of.
    fn arguments<'py>(&self, py: Python<'py>, role: &str) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item(role, self.value(py)?)?;
        named.set_item("entity_id", &self.entity_id)?;
        named.set_item("kind", &self.kind)?;
        named.set_item("revision", self.revision)?;
        named.set_item("position", self.cursor.position)?;
        named.set_item("cursor", Bound::new(py, self.cursor)?)?;
        named.set_item("shard", self.shard)?;
        named.set_item("time", clock::utc(py, self.time)?)?;
        let encoded = self.carried.as_ref().map_or(&[][..], |carried| &carried.encoded);
        named.set_item("metadata", terms::dictionary(py, encoded)?)?;
        named.set_item("name", &self.name)?;
        named.set_item("version", self.version)?;
        Ok((PyTuple::empty(py), named))
    }
}

macro_rules! envelope {
    ($(#[$doc:meta])* $class:ident, $role:ident, $text:literal) => {
        $(#[$doc])*
        #[pyclass(frozen, weakref, generic, module = "ego")]
        #[derive(Debug)]
        pub struct $class(pub Envelope);

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
                Envelope::given(Given {
                    value, entity_id, kind, revision, position, cursor, shard, time, metadata, name, version,
                })
                .map(Self)
            }

            #[doc = concat!("The ", $text, ". Raises why, where what is stored cannot be read.")]
            #[getter]
            fn $role(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                self.0.value(py)
            }

            /// The entity's id.
            #[getter]
            fn entity_id(&self, py: Python<'_>) -> Py<PyString> {
                self.0.entity_id.clone_ref(py)
            }

            /// The entity's kind.
            #[getter]
            fn kind(&self, py: Python<'_>) -> Py<PyString> {
                self.0.kind.clone_ref(py)
            }

            /// The entity's revision with it, from 1.
            #[getter]
            fn revision(&self) -> u64 {
                self.0.revision
            }

            /// Its place in the store, from 1.
            #[getter]
            fn position(&self) -> u64 {
                self.0.cursor.position
            }

            /// Its place as a reader keeps it.
            #[getter]
            fn cursor(&self) -> Cursor {
                self.0.cursor
            }

            /// The entity's shard.
            #[getter]
            fn shard(&self) -> u16 {
                self.0.shard
            }

            /// When it was committed, in UTC.
            #[getter]
            fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
                clock::utc(py, self.0.time)
            }

            /// What was given with the command, and what it inherited.
            #[getter]
            fn metadata(&self, py: Python<'_>) -> PyResult<Py<PyMappingProxy>> {
                self.0.metadata(py)
            }

            /// The stored name of its type.
            #[getter]
            fn name(&self, py: Python<'_>) -> Py<PyString> {
                self.0.name.clone_ref(py)
            }

            /// The stored version of its type.
            #[getter]
            fn version(&self) -> u32 {
                self.0.version
            }

            /// "kind/entity_id/revision": the same whenever it is delivered.
            #[getter]
            fn id(&self, py: Python<'_>) -> PyResult<String> {
                self.0.id(py)
            }

            fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
                let py = other.py();
                let Ok(other) = other.cast_exact::<Self>() else { return Ok(py.NotImplemented()) };
                Ok(self.0.equals(&other.get().0, py)?.into_pyobject(py)?.to_owned().into_any().unbind())
            }

            fn __hash__(&self, py: Python<'_>) -> PyResult<u64> {
                self.0.hash(py)
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                self.0.shown(py, stringify!($class), stringify!($role))
            }

            fn __getnewargs_ex__<'py>(
                &self,
                py: Python<'py>,
            ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
                self.0.arguments(py, stringify!($role))
            }

            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                visit.call(&self.0.value)
            }
        }
    };
}

envelope! {
    /// An event, and where it stands. The engine makes them; a test makes them of an event and what else matters to it.
    EventEnvelope, event, "event"
}

envelope! {
    /// A durable state as one command left it, and where it stands. Like an `EventEnvelope`.
    StateEnvelope, state, "state"
}
