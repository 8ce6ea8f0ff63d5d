"""The entity under test: what both sorts of behaviors have in common. It holds no state; situations do."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar, Literal, NamedTuple

from ego._codec import codec_of
from ego._config import check_entity_id
from ego._errors import CodecError, HandlerResultError
from ego._kinds import Kind
from ego._registry import Registered
from ego._types import type_arguments
from ego.testing._clock import Clock
from ego.testing._difference import differences, shown
from ego.testing._errors import ArrangementError, BehaviorError
from ego.testing._standing import Carried, Standing
from ego.testing._storing import Seen, Storage

__tracebackhide__ = True  # pytest shows the line of the test instead


class Situation(NamedTuple):
    """Where an entity stands: its state, and its revision or version."""

    state: Seen[Any]
    number: int


class Step(NamedTuple):
    """What an accepted command did."""

    events: tuple[Any, ...]
    after: Situation


class Entity(ABC):
    """Calls the handlers of one entity as the engine does, and watches what they do to their arguments."""

    counts: ClassVar[Literal["revision", "version"]]

    def __init__(self, kind: Kind[Any, Any], entity_id: str, clock: Clock | None) -> None:
        self._kind = kind
        self._clock = clock
        self._id = check_entity_id(entity_id)
        self._registered = Registered(kind)
        self._spec = self._registered.spec()
        self._arguments = type_arguments(kind.behavior)
        self._states = Storage("state", codec_of(self._registered.name, "state", self._arguments.states))
        self._behavior = self._made()

    def __str__(self) -> str:
        return f"{self._registered.name}/{self._id}"

    def standing(self, command: object, before: Situation, carried: Carried) -> Standing:
        """What the handler of that command is told by `ego.context()`."""
        try:
            return Standing(self._spec, self._id, before.number, command, carried, self._clock)
        except (TypeError, ValueError, CodecError) as error:
            raise ArrangementError(f"{self}: {error}") from error

    def call(self, command: object, before: Situation) -> Any:
        """What `handle_command` returns. Raises what it raises."""
        try:
            return self._decided(command, before)
        finally:
            before.state.check_unchanged("handle_command")

    async def finish(self, pending: Awaitable[Any], before: Situation) -> Any:
        """The same for an `async def` handler, once it was called."""
        try:
            return await pending
        finally:
            before.state.check_unchanged("handle_command")

    @abstractmethod
    def _decided(self, command: object, before: Situation) -> Any:
        """What the handler of this sort of behavior returns."""

    @abstractmethod
    def conclude(self, result: object, before: Situation) -> Step:
        """What follows from that. Raises what refuses the command after all."""

    def is_awaitable(self, result: object) -> bool:
        """Whether the result of a call has to be awaited first."""
        return inspect.isawaitable(result)

    def check_command(self, command: object) -> None:
        """Refuses a command that no behavior of this kind would be shown."""
        commands = self._arguments.commands
        if commands is not None and not isinstance(command, tuple(each.cls for each in commands)):
            names = ", ".join(each.cls.__name__ for each in commands)
            raise ArrangementError(f"{self} takes {names}, not {shown(command)}")

    def check_expected(self, events: tuple[object, ...]) -> None:
        """Refuses events that no behavior of this kind can give."""
        if events:
            raise ArrangementError(f"{self} has a durable state and no events; expect a state and a version")

    def check_arranged_state(self, state: object) -> None:
        """Refuses a state that is none of this kind."""
        if not self._states.knows(state, exactly=False):
            raise ArrangementError(f"{self} has states of type {self._states.names()}, not {shown(state)}")

    def initial(self) -> Situation:
        """The situation before anything has happened."""
        state = self._behavior.initial_state()
        self._check_state(state, "initial_state")
        situation = Situation(self._states.see(state), 0)
        self._check_same("initial_state", state, self._made().initial_state())
        return situation

    def _made(self) -> Any:
        made: object = (self._kind.create or self._kind.behavior)(self._id)
        if not isinstance(made, self._kind.behavior) or getattr(made, "id", None) != self._id:
            raise ArrangementError(
                f"{self}: making it must give a {self._kind.behavior.__name__} with that id, not {made!r}; "
                "does its __init__ call super().__init__(entity_id)?"
            )
        return made

    def _check_state(self, state: object, function: str) -> None:
        if not self._states.knows(state, exactly=False):
            raise self._bad_result(
                f"{function} returned {shown(state)} where a state is wanted: {self._states.names()}"
            )

    def _check_same(self, function: str, first: object, second: object) -> None:
        found = [*differences(first, second)]
        if found:
            told = "; ".join(each.told("first", "then") for each in found)
            raise BehaviorError(f"{self}: {function} is not pure, called twice with the same it differs: {told}")

    def _bad_result(self, problem: str) -> HandlerResultError:
        return HandlerResultError(f"{self}: {problem}", kind=self._registered.name, entity_id=self._id)
