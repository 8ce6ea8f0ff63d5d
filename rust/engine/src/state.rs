//! Durable states: checked after a command, stored whole.

use crate::entity::{Entity, Live};
use crate::error;
use crate::turn::{self, Carried};
use ego_core::journal::{Content, Journal, Record};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyTuple};

/// Checks, encodes and appends what a handler returned, and moves the entity on.
///
/// # Errors
/// `HandlerResultError`, `VersionError`, `CodecError`, and what appending raises.
#[inline(never)]
pub fn conclude(
    py: Python<'_>,
    journal: &dyn Journal,
    entity: &Entity,
    live: &mut Live,
    result: &Bound<'_, PyAny>,
    carried: Carried<'_>,
) -> PyResult<()> {
    if result.is_none() {
        return turn::append(py, journal, entity, live, Content::Events(&[]), carried);
    }
    let pair = result.cast_exact::<PyTuple>().ok().filter(|pair| pair.len() == 2);
    let parts = pair.and_then(|pair| {
        let version = pair.get_borrowed_item(1).ok().filter(|version| !version.is_instance_of::<PyBool>())?;
        Some((pair, pair.get_item(0).ok()?, version.extract::<u64>().ok()?))
    });
    let Some((pair, state, version)) = parts else { return Err(no_change(result, entity)) };
    entity.kind.check_state(&state, &entity.key, "handle_command")?;
    let before = live.state.bind(py);
    if version == live.revision && before.eq(&state)? {
        return turn::append(py, journal, entity, live, Content::Events(&[]), carried);
    }
    if version != live.revision + 1 || state.get_type_ptr() != before.get_type_ptr() {
        return Err(wrong_version(py, entity, live, &state, version));
    }
    let Some(stored) = entity.kind.stored_type(&state) else { return Err(no_change(result, entity)) };
    let payload = turn::encode(py, entity, &state, "a state")?;
    let record = Record { name: &stored.name, version: stored.version, payload: payload.as_bytes() };
    turn::append(py, journal, entity, live, Content::State(record), carried)?;
    std::mem::replace(&mut live.state, state.unbind()).drop_ref(py);
    // The very pair is the answer: nobody can change it.
    let before = live.shown.replace(pair.clone().unbind());
    if let Some(before) = before {
        before.drop_ref(py);
    }
    Ok(())
}

fn no_change(found: &Bound<'_, PyAny>, entity: &Entity) -> PyErr {
    let shown = found.repr().map(|text| text.to_string()).unwrap_or_default();
    let message = format!("handle_command gave {shown} where (state, version) or None is wanted");
    error::about(found.py(), "HandlerResultError", &entity.key, &message)
}

fn wrong_version(py: Python<'_>, entity: &Entity, live: &Live, state: &Bound<'_, PyAny>, version: u64) -> PyErr {
    let next = live.revision + 1;
    let types = (|| PyResult::Ok((live.state.bind(py).get_type().qualname()?, state.get_type().qualname()?)))();
    let made = types.and_then(|(before, after)| {
        let message = if state.get_type_ptr() == live.state.bind(py).get_type_ptr() {
            format!(
                "handle_command gave version {version} where {next} is next; return the state with {next}, or None for no change"
            )
        } else {
            format!("handle_command gave a {after} of version {version} where a {before} of version {next} is next")
        };
        let facts = [
            ("expected", next.into_bound_py_any(py)?),
            ("actual", version.into_bound_py_any(py)?),
            ("expected_type", before.into_any()),
            ("actual_type", after.into_any()),
        ];
        Ok(error::with(py, "VersionError", &entity.key, &message, &facts))
    });
    made.unwrap_or_else(|failure| failure)
}
