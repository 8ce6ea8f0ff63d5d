"""given, when, then: one entity, without an engine and without a store.

It runs the handlers as the engine does, one command after the other, and checks on the way what every behavior has to
keep. It does not store anything, knows no other entity and no time.
"""

from collections.abc import Mapping
from typing import Any, Generic, Never, TypeVar, overload

from msgspec import UNSET, UnsetType

from ego._behaviors import AnyBehavior, DurableStateBehavior, EventSourcedBehavior
from ego._kinds import Kind
from ego.testing._clock import Clock
from ego.testing._durable_state import DurableStateEntity
from ego.testing._entity import Entity, Situation
from ego.testing._errors import ArrangementError
from ego.testing._event_sourced import EventSourcedEntity
from ego.testing._outcome import Outcome
from ego.testing._standing import Carried

__tracebackhide__ = True  # pytest shows the line of the test instead

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")


class Given(Generic[C, E, S]):
    """An entity in a situation. It does not change: several commands can be tried on it."""

    def __init__(self, entity: Entity, situation: Situation) -> None:
        self._entity = entity
        self._situation = situation

    def when(
        self, command: C, /, *, command_id: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Outcome[C, E, S]:
        """Runs `handle_command` once, and what follows from it.

        `ego.context()` tells the handler of `command_id` and `metadata`.
        """
        return Outcome(self._entity, self._situation, command, Carried(command_id, metadata))


@overload
def given(
    kind: type[EventSourcedBehavior[C, E, S]],
    /,
    *events: E,
    id: str = "test",
    clock: Clock | None = None,
) -> Given[C, E, S]: ...
@overload
def given(
    kind: type[DurableStateBehavior[C, S]],
    /,
    *,
    state: S | UnsetType = UNSET,
    version: int | None = None,
    id: str = "test",
    clock: Clock | None = None,
) -> Given[C, Never, S]: ...
@overload
def given(
    kind: Kind[C, S],
    /,
    *events: Any,
    state: S | UnsetType = UNSET,
    version: int | None = None,
    id: str = "test",
    clock: Clock | None = None,
) -> Given[C, Any, S]: ...
def given(
    kind: type[AnyBehavior] | Kind[Any, Any],
    /,
    *events: Any,
    state: Any = UNSET,
    version: int | None = None,
    id: str = "test",  # noqa: A002 (what a behavior calls it too)
    clock: Clock | None = None,
) -> Given[Any, Any, Any]:
    """An entity of a behavior class, or of an `ego.Kind` with its `create`, for which all of this has happened.

    An event-sourced one is given its earlier events. A durable-state one is given its state, and the version of it
    where that is not 1. Given neither, the entity is new. `clock` is what `ego.context().now()` shows to its handlers.

    Raises `ArrangementError` for what cannot have happened, and `BehaviorError` where the behavior breaks a rule of all
    behaviors. What an engine refuses to register raises `ego.ConfigError` here as well.
    """
    checked = kind if isinstance(kind, Kind) else Kind(kind)
    if issubclass(checked.behavior, DurableStateBehavior):
        durable = DurableStateEntity(checked, id, clock)
        durable.check_expected(events)
        return Given(durable, durable.at(state, version))
    sourced = EventSourcedEntity(checked, id, clock)
    if state is not UNSET or version is not None:
        raise ArrangementError(f"{sourced} is event-sourced: give the events that led to its state")
    return Given(sourced, sourced.after(events))
