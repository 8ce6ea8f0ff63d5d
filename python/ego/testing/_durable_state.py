"""A durable-state entity under test: a change is the next version of a state of the same type, or none at all."""

from typing import Any, ClassVar, Literal, cast

from msgspec import UNSET

from ego._errors import VersionError
from ego.testing._difference import differences, shown
from ego.testing._entity import Entity, Situation, Step
from ego.testing._errors import ArrangementError, BehaviorError

__tracebackhide__ = True  # pytest shows the line of the test instead


class DurableStateEntity(Entity):
    """An entity whose state itself is stored."""

    counts: ClassVar[Literal["revision", "version"]] = "version"

    def at(self, state: object, version: int | None) -> Situation:
        """The situation with that state stored under that version, 1 unless it is said."""
        initial = self.initial()
        if version is not None and (type(version) is not int or version < 0):
            raise ArrangementError(f"{self}: a version is a number from 0 on, not {version!r}")
        if state is UNSET:
            if version:
                raise ArrangementError(f"{self}: version {version} needs a state; version 0 is the initial one")
            return initial
        self.check_arranged_state(state)
        if version == 0 and any(differences(initial.state.value, state)):
            raise ArrangementError(
                f"{self}: version 0 has the initial state {shown(initial.state.value)}, not {shown(state)}"
            )
        try:
            return Situation(self._states.see(state), 1 if version is None else version)
        except BehaviorError as error:
            raise ArrangementError(f"{self}: {error}") from error

    def conclude(self, result: object, before: Situation) -> Step:
        if result is None:
            return Step((), before)
        state, version = self._change(result)
        self._check_state(state, "handle_command")
        after = Situation(self._states.see(state), version)
        if version == before.number and not any(differences(before.state.value, state)):
            return Step((), before)
        if version != before.number + 1 or type(state) is not type(before.state.value):
            raise self._version_error(before, after)
        return Step((), after)

    def _decided(self, command: object, before: Situation) -> Any:
        return self._behavior.handle_command(command, before.number, before.state.value)

    def _change(self, result: object) -> tuple[object, int]:
        pair = cast("tuple[object, ...]", result)
        if type(pair) is tuple and len(pair) == 2 and type(pair[1]) is int and pair[1] >= 0:
            return pair[0], pair[1]
        raise self._bad_result(f"handle_command gave {shown(result)}; return (state, version) or None")

    def _version_error(self, before: Situation, after: Situation) -> VersionError:
        expected, current, given = (
            before.number + 1,
            type(before.state.value).__name__,
            type(after.state.value).__name__,
        )
        return VersionError(
            f"{self}: handle_command gave version {after.number} with a {given}; after version {before.number} "
            f"it is version {expected} with a {current}, or no change",
            kind=self._registered.name,
            entity_id=self._id,
            expected=expected,
            actual=after.number,
            expected_type=current,
            actual_type=given,
        )
