"""The troubles of a store, as a test asks for them."""

import errno
from types import TracebackType
from typing import Literal, Self
from weakref import ref

from ego._behaviors import AnyBehavior
from ego._seam import NativeFaults
from ego.testing._errors import ArrangementError
from ego.testing._waiting import Moment, guarded

Named = tuple[type[AnyBehavior] | str, str]
"""One entity: its behavior class or the name of its kind, and its id."""


class Faults:
    """A script of what goes wrong in a `FaultyStore`, written before or while an engine runs on it.

    Each rule concerns the next `times` calls (`None`: all) of all entities, or of the one that is named by
    `entity=(Account, "acct-1")`. Of several that concern a call, the oldest counts.
    """

    def __init__(self) -> None:
        self.native = NativeFaults()
        """The script as the native half wants it."""
        self._told: list[str] = []

    def fail(
        self,
        operation: Literal["append", "read"],
        error: OSError | None = None,
        *,
        entity: Named | None = None,
        times: int | None = 1,
    ) -> None:
        """Has a write or a read fail, with EIO unless another error is given.

        A write that fails stores nothing and poisons the store: its sender gets `OutcomeUnknownError`, whoever comes
        later `StorePoisonedError`. A read that fails is a `StorageError` for who needed it, and can be tried again.
        """
        if operation not in ("append", "read"):
            raise ArrangementError(f'the operation is "append" or "read", not {operation!r}')
        code = errno.EIO if error is None else error.errno
        if code is None:
            raise ArrangementError(f"{error!r} has no errno; write OSError(errno.EIO, ...)")
        number = self.native.fail(operation, code, _named(entity), _checked(times))
        self._tell(number, f"fail {operation}", entity, times)

    def refuse(self, operation: Literal["append"], *, entity: Named | None = None, times: int | None = 1) -> None:
        """Has a write refused with `StoreFullError`, as on a full disk: nothing is written, and work goes on."""
        _check_append(operation)
        number = self.native.refuse(_named(entity), _checked(times))
        self._tell(number, "refuse append", entity, times)

    def lose_answer(self, operation: Literal["append"], *, entity: Named | None = None, times: int | None = 1) -> None:
        """Has a write stored while everybody is told that it failed; the store is poisoned as by `fail`."""
        _check_append(operation)
        number = self.native.lose_answer(_named(entity), _checked(times))
        self._tell(number, "lose the answer of append", entity, times)

    def hold(self, operation: Literal["append"], *, entity: Named | None = None, times: int | None = 1) -> "Held":
        """Has the disk take its time: nothing from that write on is settled before the release."""
        _check_append(operation)
        reached = Moment()
        seen = ref(reached)

        def note() -> None:
            moment = seen()
            if moment is not None:
                moment.come()

        number = self.native.hold(note, _named(entity), _checked(times))
        self._tell(number, "hold append", entity, times)
        return Held(self.native, number, reached)

    def unused(self) -> list[str]:
        """What was asked for and did not happen, or not as often."""
        return [self._told[number] for number in self.native.unused()]

    def _tell(self, number: int, what: str, entity: Named | None, times: int | None) -> None:
        named = _named(entity)
        whose = "" if named is None else f" of {named[0]}/{named[1]}"
        often = " always" if times is None else "" if times == 1 else f" {times} times"
        self._told.insert(number, f"{what}{whose}{often}")


class Held:
    """Writes that wait. Leaving its `with` block releases them."""

    def __init__(self, faults: NativeFaults, number: int, reached: Moment) -> None:
        self._faults = faults
        self._number = number
        self._reached = reached

    async def reached(self) -> None:
        """Returns once a write waits."""
        await guarded(self._reached.wait(), "a write to be held")

    def release(self) -> None:
        """Settles what waits, and holds nothing any more."""
        self._faults.release(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _named(entity: Named | None) -> tuple[str, str] | None:
    if entity is None:
        return None
    kind, entity_id = entity
    return kind if isinstance(kind, str) else kind.kind, entity_id


def _checked(times: int | None) -> int | None:
    if times is not None and (type(times) is not int or times < 1):
        raise ArrangementError(f"times is a number from 1 on, or None for always, not {times!r}")
    return times


def _check_append(operation: str) -> None:
    if operation != "append":
        raise ArrangementError(f'the operation is "append", not {operation!r}; a read can only fail')
