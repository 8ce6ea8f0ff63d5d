"""An event-sourced entity under test. Each event is folded twice, the second time as it is read from a store."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, cast

from ego._kinds import Kind
from ego.testing._clock import Clock
from ego.testing._difference import shown
from ego.testing._entity import Entity, Situation, Step
from ego.testing._errors import ArrangementError, BehaviorError
from ego.testing._standing import outside
from ego.testing._storing import Seen, Storage

__tracebackhide__ = True  # pytest shows the line of the test instead


class EventSourcedEntity(Entity):
    """An entity whose state is the fold of its events."""

    counts: ClassVar[Literal["revision", "version"]] = "revision"

    def __init__(self, kind: Kind[Any, Any], entity_id: str, clock: Clock | None) -> None:
        super().__init__(kind, entity_id, clock)
        self._events = Storage("event", self._registered.codec)

    def after(self, history: Iterable[object]) -> Situation:
        """The situation after those events."""
        at = self.initial()
        reader = self._made()
        for number, event in enumerate(history, 1):
            self._check_declared(event)
            try:
                seen = self._events.see(event)
            except BehaviorError as error:
                raise ArrangementError(f"{self}: {error}") from error
            try:
                at = self._folded(reader, seen, at)
            except BehaviorError:
                raise
            except Exception as error:
                raise ArrangementError(
                    f"{self}: the history does not fold: event {number}, {shown(event)}: {error!r}"
                ) from error
        return at

    def is_awaitable(self, result: object) -> bool:
        return super().is_awaitable(result) and not self._events.knows(result, exactly=True)

    def conclude(self, result: object, before: Situation) -> Step:
        events: tuple[object, ...]
        if result is None:
            events = ()
        elif type(result) in (list, tuple):
            events = tuple(cast("Iterable[object]", result))
        else:
            events = (result,)
        for event in events:
            if not self._events.knows(event, exactly=True):
                raise self._bad_result(
                    f"handle_command gave {shown(event)} where an event is wanted: {self._events.names()}; "
                    "return one event, a list or tuple of events, or None"
                )
        at = before
        reader = self._made()
        for event in events:
            at = self._folded(reader, self._events.see(event), at)
        return Step(events, at)

    def check_expected(self, events: tuple[object, ...]) -> None:
        for event in events:
            self._check_declared(event)

    def _decided(self, command: object, before: Situation) -> Any:
        return self._behavior.handle_command(command, before.state.value)

    def _check_declared(self, event: object) -> None:
        if not self._events.knows(event, exactly=True):
            raise ArrangementError(f"{self} has events of type {self._events.names()}, not {shown(event)}")

    def _folded(self, reader: Any, event: Seen[Any], before: Situation) -> Situation:
        try:
            state = self._behavior.handle_event(event.value, before.state.value)
        finally:
            before.state.check_unchanged("handle_event")
            event.check_unchanged("handle_event")
        self._check_state(state, "handle_event")
        after = Situation(self._states.see(state), before.number + 1)
        try:
            with outside():
                again = reader.handle_event(event.copy(), before.state.copy())
        except Exception as error:
            raise BehaviorError(
                f"{self}: handle_event is not pure, it took {shown(event.value)} once and then raised {error!r}"
            ) from error
        self._check_same("handle_event", state, again)
        return after
