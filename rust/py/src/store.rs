//! One opened store, as Python holds it.

use crate::faults::Faults;
use ego_core::StoreError;
use ego_core::journal::{EntityKey, Journal, Read};
use ego_core::loader::Loader;
use ego_core::log::{Log, LogOptions, Opened};
use ego_core::memory::MemoryJournal;
use ego_core::scripted::ScriptedJournal;
use ego_engine::clock::HandClock;
use ego_engine::{error, terms};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Every store that was opened in this process, for the child of a fork. The interpreter lock guards it as well: a
/// child has it free.
static OPENED: Mutex<Vec<Weak<dyn Journal>>> = Mutex::new(Vec::new());

type ReadRow<'py> = (String, String, u64, u64, u64, String, u32, Bound<'py, PyBytes>, Bound<'py, PyDict>);
type Place = (EntityKey, u64, u64, u64);
type Bytes = (Vec<u8>, Vec<u8>);

/// An opened journal.
#[pyclass(frozen, module = "ego._native")]
pub(crate) struct Store {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) loader: Arc<Loader>,
    /// What opening a log found.
    opened: Option<Opened>,
}

impl Store {
    fn keep(journal: Arc<dyn Journal>, opened: Option<Opened>) -> Self {
        let mut all = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|held| held.strong_count() > 0);
        all.push(Arc::downgrade(&journal));
        drop(all);
        Self { journal, loader: Arc::default(), opened }
    }
}

#[pymethods]
impl Store {
    /// A store in memory.
    #[staticmethod]
    fn memory(clock: Option<&HandClock>) -> Self {
        Self::keep(Arc::new(MemoryJournal::new(HandClock::door(clock))), None)
    }

    /// A log in a directory. Waits for the disk without holding the interpreter lock.
    #[staticmethod]
    #[pyo3(signature = (path, *, shards, segment_bytes, max_unit_bytes, max_queue_bytes, clock))]
    fn open_log(
        py: Python<'_>,
        path: PathBuf,
        shards: u16,
        segment_bytes: u64,
        max_unit_bytes: u32,
        max_queue_bytes: u64,
        clock: Option<&HandClock>,
    ) -> PyResult<Self> {
        let defaults = LogOptions::default();
        let options = LogOptions { shards, segment_bytes, max_unit_bytes, max_queue_bytes, ..defaults };
        let door = HandClock::door(clock);
        let log = py.detach(|| Log::open(door, &path, options)).map_err(|failure| error::storage(py, &failure))?;
        let opened = log.opened().clone();
        Ok(Self::keep(Arc::new(log), Some(opened)))
    }

    /// The same store with the troubles of a test.
    fn scripted(&self, faults: &Faults, path: PathBuf) -> Self {
        let journal = ScriptedJournal::new(Arc::clone(&self.journal), Arc::clone(&faults.0), path);
        Self::keep(Arc::new(journal), self.opened.clone())
    }

    /// What opening the store found.
    fn opened<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let report = PyDict::new(py);
        let Some(opened) = &self.opened else { return Ok(report) };
        report.set_item("created", opened.created)?;
        report.set_item("entities", opened.entities)?;
        report.set_item("position", opened.position)?;
        report.set_item("undecided_copied", opened.undecided_copied)?;
        report.set_item("scanned_bytes", opened.scanned_bytes)?;
        report.set_item("elapsed_nanos", opened.elapsed_nanos)?;
        let torn = match &opened.torn {
            None => None,
            Some(torn) => {
                let facts = PyDict::new(py);
                facts.set_item("path", torn.path.to_string_lossy())?;
                facts.set_item("offset", torn.offset)?;
                facts.set_item("bytes", torn.bytes)?;
                Some(facts)
            }
        };
        report.set_item("torn", torn)?;
        Ok(report)
    }

    /// Commits what was accepted and closes. Waits for the disk without holding the interpreter lock.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let close = || {
            self.loader.close();
            self.journal.close()
        };
        py.detach(close).map_err(|failure| error::storage(py, &failure))
    }

    /// Counters.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        fill_stats(&*self.journal, &counters)?;
        Ok(counters)
    }

    /// The durable events and states from a position on, at most `limit`, each with its metadata.
    fn read_from<'py>(&self, py: Python<'py>, position: u64, limit: usize) -> PyResult<Vec<ReadRow<'py>>> {
        let mut rows = Vec::new();
        let read = py.detach(|| {
            self.journal.read_from(position.max(1), &mut |entity, event| {
                if rows.len() < limit {
                    let place = (entity.clone(), event.revision, event.position, event.time);
                    let bytes = (event.payload.to_vec(), event.metadata.to_vec());
                    rows.push((place, event.name.to_owned(), event.version, bytes));
                }
                if rows.len() < limit { Read::More } else { Read::Enough }
            })
        });
        read.map_err(|failure| error::storage(py, &failure))?;
        let row = |(place, name, version, (payload, metadata)): (Place, String, u32, Bytes)| {
            let (entity, revision, position, time) = place;
            let metadata = terms::dictionary(py, &metadata)?;
            let (kind, id, payload) = (entity.kind.to_string(), entity.id.to_string(), PyBytes::new(py, &payload));
            Ok((kind, id, revision, position, time, name, version, payload, metadata))
        };
        rows.into_iter().map(row).collect()
    }

    /// Why the store takes no more writes, if it does not.
    #[getter]
    fn poisoned(&self) -> Option<String> {
        match self.journal.poisoned()? {
            StoreError::Poisoned { cause } | StoreError::OutcomeUnknown { cause } => Some(cause.to_string()),
            other => Some(other.to_string()),
        }
    }
}

/// Copies a journal's counters.
pub(crate) fn fill_stats(journal: &dyn Journal, counters: &Bound<'_, PyDict>) -> PyResult<()> {
    let stats = journal.stats();
    counters.set_item("position", stats.position)?;
    counters.set_item("entities", stats.entities)?;
    counters.set_item("units", stats.units)?;
    counters.set_item("batches", stats.batches)?;
    counters.set_item("bytes", stats.bytes)?;
    counters.set_item("pending", stats.pending)
}

/// Lets go of every store that the parent opened, and of its threads; called in the child of a fork.
#[pyfunction]
pub(crate) fn after_fork_in_child(py: Python<'_>) {
    ego_answer::line::forget_after_fork(py);
    let opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    for journal in opened.iter().filter_map(Weak::upgrade) {
        journal.abandon_after_fork();
        // Its threads are the parent's: nothing here may wait for them.
        std::mem::forget(journal);
    }
}
