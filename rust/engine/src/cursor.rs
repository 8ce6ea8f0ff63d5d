//! Where something stands in a store: what a reader keeps so that it can go on from there.

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What every text of a cursor starts with: the form of the rest.
const FORM: &str = "ego1";

/// A place in one store.
///
/// `str(cursor)` is a text that `Cursor.parse` reads again; what it is made of may change. Cursors of one store can be
/// compared.
#[pyclass(frozen, module = "ego", name = "Cursor")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub store: [u8; 16],
    pub position: u64,
}

impl Cursor {
    fn text(&self) -> String {
        let store: String = self.store.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{FORM}.{store}.{}", self.position)
    }
}

/// The bytes of 32 hexadecimal digits.
fn store_of(digits: &str) -> Option<[u8; 16]> {
    let plain = digits.len() == 32 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)).flatten()
}

fn position_of(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

#[pymethods]
impl Cursor {
    #[new]
    #[pyo3(signature = (store_id, position))]
    fn new(store_id: &[u8], position: u64) -> PyResult<Self> {
        let store = store_id.try_into().map_err(|_| PyValueError::new_err("the id of a store has 16 bytes"))?;
        Ok(Self { store, position })
    }

    /// The cursor of a text that `str` made of one.
    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn parse(text: &str) -> PyResult<Self> {
        let parts: Vec<_> = text.split('.').collect();
        let read = match &*parts {
            [FORM, store, position] => store_of(store).zip(position_of(position)),
            _ => None,
        };
        let (store, position) =
            read.ok_or_else(|| PyValueError::new_err(format!("this is not the text of an ego.Cursor: {text:?}")))?;
        Ok(Self { store, position })
    }

    /// The id of the store.
    #[getter]
    fn store_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.store)
    }

    /// The position in that store.
    #[getter]
    fn position(&self) -> u64 {
        self.position
    }

    fn __str__(&self) -> String {
        self.text()
    }

    fn __repr__(&self) -> String {
        format!("ego.Cursor.parse('{}')", self.text())
    }

    fn __hash__(&self) -> u64 {
        hash_of(self)
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, how: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let other = other.get();
        if self.store != other.store && !matches!(how, CompareOp::Eq | CompareOp::Ne) {
            return Err(PyTypeError::new_err("cursors of different stores have no order"));
        }
        let order = (self.position, self.store).cmp(&(other.position, other.store));
        Ok(how.matches(order).into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (Bound<'py, PyBytes>, u64)) {
        (slf.get_type().into_any(), (slf.get().store_id(slf.py()), slf.get().position))
    }
}

pub fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
