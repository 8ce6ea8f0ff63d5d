//! The seam between the engine and Python: `ego._native`.
//!
//! It converts, delegates to `ego_engine`, and converts back.

mod blocking;
mod engine;
mod entity_ref;
mod faults;
mod send;
mod store;

use ego_engine::{clock, context, cursor, envelope, feed, kind};
use pyo3::prelude::*;

/// The native half of `ego`.
#[pymodule(gil_used = true)]
fn _native(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<()> {
    ego_answer::fast::init(py)?;
    send::init(py)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("__profile__", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    module.add_class::<store::Store>()?;
    module.add_class::<clock::HandClock>()?;
    module.add_class::<faults::Faults>()?;
    module.add_class::<kind::KindSpec>()?;
    module.add_class::<engine::NativeEngine>()?;
    module.add_class::<entity_ref::EntityRef>()?;
    module.add_class::<context::Context>()?;
    module.add_class::<cursor::Cursor>()?;
    module.add_class::<feed::Feed>()?;
    module.add_class::<envelope::EventEnvelope>()?;
    module.add_class::<envelope::StateEnvelope>()?;
    module.add("running", context::variable(py)?)?;
    module.add_function(wrap_pyfunction!(context::context, module)?)?;
    module.add_function(wrap_pyfunction!(blocking::check_may_block, module)?)?;
    module.add_function(wrap_pyfunction!(blocking::call, module)?)?;
    module.add_function(wrap_pyfunction!(blocking::call_state, module)?)?;
    module.add_function(wrap_pyfunction!(store::after_fork_in_child, module)?)
}
