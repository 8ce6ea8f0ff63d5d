//! Who leaves memory: entities that were idle for their time, and those above the limit.
//!
//! One leaves while nobody has its turn and all of it is durable; the next command finds it in the store. Nothing here
//! costs an entity without a time and without a limit.

use crate::engine::Engine;
use crate::entity::Entity;
use crate::pending;
use crate::run::Run;
use crate::turn::{Fate, fate};
use ego_core::entities::residents::{Marks, Residents};
use pyo3::prelude::*;
use std::sync::Arc;

/// Entities that leave before the loop gets its turn.
const BUDGET: usize = 512;
/// Nanoseconds between two looks.
const PAUSE: u64 = 20_000_000;

impl Engine {
    /// Forgets who is watched.
    pub fn watch_nobody(&self, py: Python<'_>) -> Residents<Arc<Entity>> {
        let mut residents = self.residents.borrow_mut(py);
        let nobody = Residents::new(residents.limit(), self.house.clock.monotonic_nanos());
        std::mem::replace(&mut residents, nobody)
    }
}

/// An entity has come into memory; its turn is taken.
pub fn came(engine: &Bound<'_, Engine>, run: &Run, entity: &Arc<Entity>) -> PyResult<()> {
    let (py, inner) = (engine.py(), engine.get());
    let period = entity.passivate_after(py);
    let limited = inner.residents.borrow(py).limit().is_some();
    entity.watched.set(py, limited || period.is_some());
    if limited {
        let mut marks = entity.marks.get(py);
        inner.residents.borrow_mut(py).came(entity, entity.key.hash(), &mut marks);
        entity.marks.set(py, marks);
        shrink(inner, py, run);
    }
    if let Some(period) = period {
        let now = inner.house.clock.monotonic_nanos_at_tick();
        entity.last_used.set(py, now);
        look_at(inner, py, entity, now.saturating_add(period), now);
        pending::ring(engine, run, next_look(inner, py))?;
    }
    entity.count(py, true);
    Ok(())
}

/// An entity that is watched is used.
#[inline(never)]
pub fn used(engine: &Engine, py: Python<'_>, entity: &Entity) {
    entity.last_used.set(py, engine.house.clock.monotonic_nanos_at_tick());
    engine.residents.borrow_mut(py).used(entity.marks.get(py));
}

/// Nobody has an entity's turn any more.
pub fn idle(engine: &Engine, py: Python<'_>, run: &Run, entity: &Arc<Entity>) {
    engine.let_go(py, entity);
    shrink(engine, py, run);
}

/// Has entities leave while there are more than the limit.
pub fn shrink(engine: &Engine, py: Python<'_>, run: &Run) {
    loop {
        let victim = engine.residents.borrow_mut(py).victim(|entity| may_leave(py, run, entity));
        let Some(victim) = victim else { return };
        leave(engine, py, &victim);
    }
}

/// Has entities leave that were idle for their time.
pub fn passivate(engine: &Engine, py: Python<'_>, run: &Run) {
    let clock = &engine.house.clock;
    let (now, mut budget) = (clock.monotonic_nanos_at_tick(), if clock.is_by_hand() { usize::MAX } else { BUDGET });
    while budget > 0 {
        let due = engine.residents.borrow_mut(py).take_due(now);
        let Some(entity) = due else { return };
        let mut marks = entity.marks.get(py);
        marks.rang();
        entity.marks.set(py, marks);
        let Some(period) = entity.passivate_after(py) else { continue };
        let mut due = entity.last_used.get(py).saturating_add(period);
        if due <= now {
            if may_leave(py, run, &entity) {
                leave(engine, py, &entity);
                budget -= 1;
                continue;
            }
            // What works is not idle.
            entity.last_used.set(py, now);
            due = now.saturating_add(period);
        }
        look_at(engine, py, &entity, due, now);
    }
}

/// When to look for idle entities again; 0 for never.
pub fn next_look(engine: &Engine, py: Python<'_>) -> u64 {
    let Some(next) = engine.residents.borrow(py).next_look() else { return 0 };
    let clock = &engine.house.clock;
    if clock.is_by_hand() { next.max(1) } else { next.max(clock.monotonic_nanos_at_tick().saturating_add(PAUSE)) }
}

fn look_at(engine: &Engine, py: Python<'_>, entity: &Arc<Entity>, due: u64, now: u64) {
    let mut marks = entity.marks.get(py);
    engine.residents.borrow_mut(py).look_at(entity, due, now, &mut marks);
    entity.marks.set(py, marks);
}

fn may_leave(py: Python<'_>, run: &Run, entity: &Entity) -> bool {
    let slot = entity.slot.borrow(py);
    let is_durable = |ticket| matches!(fate(&*run.lane(&entity.kind).journal, ticket), Fate::Stored);
    !slot.is_taken() && slot.content().is_none_or(|live| is_durable(live.last_ticket))
}

/// Drops what is in memory of an entity that may leave. Outside of any borrow: objects of the user go.
fn leave(engine: &Engine, py: Python<'_>, entity: &Arc<Entity>) {
    let gone = entity.slot.borrow_mut(py).reset();
    engine.house.passivated.add(py, u64::from(gone.is_some()));
    entity.count(py, false);
    unwatch(engine, py, entity);
    engine.let_go(py, entity);
    drop(gone);
}

/// Watches an entity no more.
pub fn unwatch(engine: &Engine, py: Python<'_>, entity: &Entity) {
    entity.watched.set(py, false);
    let marks = entity.marks.get(py);
    entity.marks.set(py, Marks::default());
    let left = engine.residents.borrow_mut(py).left(marks);
    drop(left);
}
