"""What a command did, and what was expected of it."""

import asyncio
import re
from collections.abc import Awaitable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import zip_longest
from typing import Any, Generic, NoReturn, Self, TypeVar

from msgspec import UNSET, UnsetType

from ego._rejections import Rejection
from ego.testing._difference import differences, shown
from ego.testing._entity import Entity, Situation, Step
from ego.testing._errors import ArrangementError, BehaviorError
from ego.testing._standing import Carried
from ego.testing._storing import check_rejection

__tracebackhide__ = True  # pytest shows the line of the test instead

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")
X = TypeVar("X", bound=Exception)


class Outcome(Generic[C, E, S]):
    """A command that was accepted or refused.

    An `async def` handler runs to its end on a loop of its own. Where a loop runs already, the outcome has to be
    awaited: `(await given(Account).when(command)).then(...)`.
    """

    def __init__(self, entity: Entity, before: Situation, command: C, carried: Carried) -> None:
        entity.check_command(command)
        self._entity = entity
        self._before = before
        self._command = command
        self._result: Step | Exception | None = None
        self._pending: Awaitable[Any] | None = None
        self._standing = entity.standing(command, before, carried)
        with self._refusing():
            result = entity.call(command, before)
            if entity.is_awaitable(result):
                self._pending = result
            else:
                self._result = entity.conclude(result, before)
        if self._pending is None:
            self._standing.close()
        elif not _in_a_loop():
            asyncio.run(self._finish())

    def __await__(self) -> Generator[Any, None, Self]:
        return self._finish().__await__()

    async def _finish(self) -> Self:
        pending, self._pending = self._pending, None
        if pending is not None:
            with closing(self._standing), self._refusing():
                result = await self._entity.finish(pending, self._before)
                self._result = self._entity.conclude(result, self._before)
        return self

    @contextmanager
    def _refusing(self) -> Generator[None]:
        """What is raised within it refuses the command, unless it tells of a broken rule."""
        try:
            with self._standing.entered():
                yield
        except BehaviorError:
            raise
        except Exception as error:
            if isinstance(error, Rejection):
                check_rejection(error)
            self._result = error

    def when(
        self, command: C, /, *, command_id: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> "Outcome[C, E, S]":
        """Runs the next command. What this one did is history then."""
        result = self._finished()
        if isinstance(result, Exception):
            raise ArrangementError(
                f"{self}: it was refused with {result!r}, and only what was accepted can be followed by a command"
            ) from result
        return Outcome(self._entity, result.after, command, Carried(command_id, metadata))

    def then(
        self,
        *events: E,
        state: S | UnsetType = UNSET,
        revision: int | None = None,
        version: int | None = None,
    ) -> Self:
        """The command was accepted and gave just these events, or none.

        `state` and `revision`, or `version` for a durable state, are compared where they are given. Of a durable state
        `then()` says that nothing changed.
        """
        self._entity.check_expected(events)
        if state is not UNSET:
            self._entity.check_arranged_state(state)
        number = self._number(revision, version)
        result = self._finished()
        if isinstance(result, Exception):
            raise AssertionError(f"{self}: expected to be accepted, was refused with {result!r}") from result
        if self._entity.counts == "version" and number is None and state is UNSET:
            number = self._before.number
        found = [*_unlike_events(events, result.events), *self._unlike_state(result.after, state, number)]
        if found:
            self._fail(found)
        return self

    def rejects(self, error: type[X], /, match: str | None = None, **attributes: object) -> X:
        """The command was refused with an exception of this type, which is returned.

        `match` is searched for in its text, as a regular expression; the attributes are compared.
        """
        result = self._finished()
        if isinstance(result, error):
            found = [*_unlike_attributes(result, attributes)]
            if match is not None and re.search(match, str(result)) is None:
                found.append(f"text: expected to match {match!r}, was {shown(str(result))}")
            if found:
                self._fail(found, result)
            return result
        if isinstance(result, Step):
            gave = ", ".join(map(shown, result.events)) or shown(result.after.state.value)
            raise AssertionError(f"{self}: expected to be refused with {error.__name__}, was accepted and gave {gave}")
        raise AssertionError(
            f"{self}: expected to be refused with {error.__name__}, was refused with {result!r}"
        ) from result

    def __str__(self) -> str:
        return f"{self._entity} at {self._entity.counts} {self._before.number}, when {shown(self._command)}"

    def _fail(self, found: list[str], cause: Exception | None = None) -> NoReturn:
        raise AssertionError("\n  ".join([f"{self}:", *found])) from cause

    def _finished(self) -> Step | Exception:
        if self._result is None:
            raise ArrangementError(
                f"{self}: its handler is async def and a loop runs here; write (await given(...).when(...)).then(...)"
            )
        return self._result

    def _number(self, revision: int | None, version: int | None) -> int | None:
        wrong, right = (version, revision) if self._entity.counts == "revision" else (revision, version)
        if wrong is not None:
            raise ArrangementError(f"{self._entity} has a {self._entity.counts}; write {self._entity.counts}={wrong}")
        return right

    def _unlike_state(self, after: Situation, state: object, number: int | None) -> Iterator[str]:
        if state is not UNSET:
            for each in differences(state, after.state.value):
                yield f"state: {each.told('expected', 'was')}"
        if number is not None and number != after.number:
            yield f"{self._entity.counts}: expected {number}, was {after.number}"


def _unlike_events(expected: tuple[object, ...], actual: tuple[object, ...]) -> Iterator[str]:
    for number, (wanted, given) in enumerate(zip_longest(expected, actual, fillvalue=UNSET), 1):
        if given is UNSET:
            yield f"event {number}: expected {shown(wanted)}, was none"
        elif wanted is UNSET:
            yield f"event {number}: expected none, was {shown(given)}"
        else:
            for each in differences(wanted, given):
                yield f"event {number}: {each.told('expected', 'was')}"


def _unlike_attributes(error: Exception, attributes: dict[str, object]) -> Iterator[str]:
    for name, wanted in attributes.items():
        if not hasattr(error, name):
            yield f"{name}: expected {shown(wanted)}, is no attribute of {type(error).__name__}"
        else:
            for each in differences(wanted, getattr(error, name), name):
                yield each.told("expected", "was")


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
