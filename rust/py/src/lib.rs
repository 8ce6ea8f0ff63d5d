//! The seam between the engine and Python: `ego._native`.
//!
//! It converts, delegates and converts back. A command comes in through [`entity_ref`], gets its turn in [`turn`], is
//! handed to the journal, and is shown by [`pending`] through its answer when the journal says so.

mod clock;
mod context;
mod dispatch;
mod engine;
mod entity;
mod entity_ref;
mod error;
mod held;
mod kind;
mod logging;
mod pending;
mod repeated;
mod replay;
mod run;
mod state;
mod store;
mod task;
mod terms;
mod turn;

use pyo3::prelude::*;

/// The native half of `ego`.
#[pymodule(gil_used = true)]
fn _native(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<()> {
    ego_answer::fast::init(py)?;
    entity_ref::init(py)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("__profile__", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    module.add_class::<store::Store>()?;
    module.add_class::<clock::HandClock>()?;
    module.add_class::<kind::KindSpec>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<entity_ref::EntityRef>()?;
    module.add_class::<context::Context>()?;
    module.add_function(wrap_pyfunction!(context::context, module)?)?;
    module.add_function(wrap_pyfunction!(store::after_fork_in_child, module)?)
}
