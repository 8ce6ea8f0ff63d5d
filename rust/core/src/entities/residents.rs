//! Which entities are watched while they are in memory: each with the time to look at it again, or a place among those
//! that a limit lets stay, or both.
//!
//! An entity of kind `E` keeps its [`Marks`] itself. Nothing is decided here: whoever is named may still have work to do,
//! and stays until [`left`](Residents::left) is called. What is given back is dropped by the caller, who knows when.

use super::residency::{Place, Residency};
use super::wheel::{Alarm, TICK, Wheel};

const NONE: u32 = u32::MAX;

/// Where an entity is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    alarm: Alarm,
    place: Place,
}

impl Marks {
    /// The alarm has rung.
    pub fn rang(&mut self) {
        self.alarm = NONE;
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self { alarm: NONE, place: NONE }
    }
}

/// The watched entities of one engine.
#[derive(Debug)]
pub struct Residents<E> {
    wheel: Wheel<E>,
    crowd: Option<Crowd<E>>,
}

#[derive(Debug)]
struct Crowd<E> {
    residency: Residency,
    by_place: Vec<Option<E>>,
}

impl<E: Clone> Residents<E> {
    /// Nobody yet; with a limit, at most so many should be in memory.
    #[must_use]
    pub fn new(limit: Option<usize>, now: u64) -> Self {
        let crowd = |limit| Crowd { residency: Residency::new(limit), by_place: Vec::new() };
        Self { wheel: Wheel::new(now), crowd: limit.map(crowd) }
    }

    /// How many may be in memory, if there is a limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        self.crowd.as_ref().map(|crowd| crowd.residency.limit())
    }

    /// An entity has come into memory. One that is noted already is used once more.
    pub fn came(&mut self, entity: &E, hash: u64, marks: &mut Marks) {
        let Some(crowd) = &mut self.crowd else { return };
        if marks.place != NONE {
            return crowd.residency.touch(marks.place);
        }
        marks.place = crowd.residency.insert(hash);
        let index = marks.place as usize;
        if crowd.by_place.len() <= index {
            crowd.by_place.resize(index + 1, None);
        }
        if let Some(place) = crowd.by_place.get_mut(index) {
            *place = Some(entity.clone());
        }
    }

    /// It is used.
    #[inline]
    pub fn used(&mut self, marks: Marks) {
        if let Some(crowd) = &mut self.crowd
            && marks.place != NONE
        {
            crowd.residency.touch(marks.place);
        }
    }

    /// Has it looked at once it is `due`, if it is not to be looked at anyway.
    pub fn look_at(&mut self, entity: &E, due: u64, now: u64, marks: &mut Marks) {
        if marks.alarm == NONE {
            // A look is never late: what is due within a tick of the wheel is due when the tick begins.
            let tick = due / TICK * TICK;
            marks.alarm = self.wheel.schedule(entity.clone(), if tick > now { tick } else { due });
        }
    }

    /// The next entity to look at; it has no alarm from now on, which its marks are to be told.
    pub fn take_due(&mut self, now: u64) -> Option<E> {
        self.wheel.take_due(now).map(|(entity, _)| entity)
    }

    /// When to look next, if ever.
    #[must_use]
    pub fn next_look(&self) -> Option<u64> {
        self.wheel.next_due()
    }

    /// Who should leave, while more are in memory than may be.
    pub fn victim(&mut self, may_leave: impl Fn(&E) -> bool) -> Option<E> {
        let Crowd { residency, by_place } = self.crowd.as_mut()?;
        let at = |place: Place| by_place.get(place as usize)?.as_ref();
        let place = residency.victim(|place| at(place).is_some_and(&may_leave))?;
        at(place).cloned()
    }

    /// It has left; gives back what was kept of it.
    pub fn left(&mut self, marks: Marks) -> (Option<E>, Option<E>) {
        let alarmed = if marks.alarm == NONE { None } else { self.wheel.cancel(marks.alarm) };
        let placed = self.crowd.as_mut().filter(|_| marks.place != NONE).and_then(|crowd| {
            crowd.residency.remove(marks.place);
            crowd.by_place.get_mut(marks.place as usize)?.take()
        });
        (alarmed, placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000 * TICK;

    #[test]
    fn an_entity_is_looked_at_once_at_its_time_and_never_late() {
        let mut residents = Residents::new(None, 1);
        let mut marks = Marks::default();
        residents.look_at(&"a", SECOND + 1, 1, &mut marks);
        residents.look_at(&"a", 5 * SECOND, 1, &mut marks);
        assert_eq!((residents.take_due(SECOND - 1), residents.take_due(SECOND + 1)), (None, Some("a")));
        marks.rang();
        residents.look_at(&"a", SECOND + 2, SECOND + 1, &mut marks);
        assert_eq!((residents.take_due(SECOND + 1), residents.take_due(SECOND + TICK)), (None, Some("a")));
        assert_eq!(residents.next_look(), None);
    }

    #[test]
    fn who_has_left_is_neither_looked_at_nor_chosen() {
        let mut residents = Residents::new(Some(1), 0);
        let mut marks = [Marks::default(); 2];
        for (entity, marks) in ["a", "b"].iter().zip(&mut marks) {
            residents.came(entity, 7, marks);
            residents.look_at(entity, SECOND, 0, marks);
        }
        let victim = residents.victim(|_| true);
        assert!(victim.is_some());
        assert_eq!(residents.left(marks[0]), (Some("a"), Some("a")));
        assert_eq!((residents.victim(|_| true), residents.take_due(SECOND)), (None, Some("b")));
        assert_eq!(residents.left(Marks::default()), (None, None));
    }

    #[test]
    fn without_a_limit_everybody_stays() {
        let mut residents = Residents::new(None, 0);
        let mut marks = Marks::default();
        residents.came(&"a", 7, &mut marks);
        assert_eq!((marks, residents.limit(), residents.victim(|_| true)), (Marks::default(), None, None));
    }
}
