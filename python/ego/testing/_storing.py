"""What storing does to a value: it is written with the engine's codec, read again, and has to be the same.

The bytes also tell whether somebody changed the value in place.
"""

from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ego._codec import Codec
from ego._errors import EgoError
from ego._rejections import Rejection, decode_rejection, encode_rejection
from ego.testing._difference import Difference, differences, parts, shown
from ego.testing._errors import BehaviorError

__tracebackhide__ = True  # pytest shows the line of the test instead

T = TypeVar("T")

Role = Literal["event", "state"]


class Seen(NamedTuple, Generic[T]):
    """A value that can be stored, and its bytes."""

    value: T
    payload: bytes
    storage: "Storage"

    def copy(self) -> T:
        """What a reader of the store gets: equal, and another object."""
        copied: T = self.storage.read(self.value, self.payload)
        return copied

    def check_unchanged(self, by: str) -> None:
        """Raises `BehaviorError` if the value was changed in place since it was seen."""
        now = self.storage.write(self.value)
        if now == self.payload:
            return
        changed = [*differences(self.copy(), self.storage.read(self.value, now))]
        if changed:
            raise BehaviorError(f"{by} changed the {self.storage.role} in place: {_lines(changed, 'was', 'is now')}")


class Storage:
    """Writes and reads the events, or the states, of one kind."""

    def __init__(self, role: Role, codec: Codec) -> None:
        self.role = role
        self._codec = codec

    def knows(self, value: object, *, exactly: bool) -> bool:
        """Whether the kind declares the type of a value, or a base of it."""
        return type(value) in self._codec.names if exactly else isinstance(value, tuple(self._codec.names))

    def names(self) -> str:
        """The types that it knows, for messages."""
        return ", ".join(each.__name__ for each in self._codec.names)

    def see(self, value: T) -> Seen[T]:
        """Raises `BehaviorError` if the value is not the same after it was written and read."""
        payload = self.write(value)
        read = self.read(value, payload)
        lost = [*differences(value, read)]
        if lost:
            raise BehaviorError(
                f"the {self.role} {shown(value)} is not the same when it is read again: "
                f"{_lines(lost, 'written', 'read')}"
            )
        return Seen(value, payload, self)

    def write(self, value: object) -> bytes:
        """The bytes of a value."""
        try:
            return self._codec.encode(value)
        except Exception as error:
            where = self._unwritable(value, type(value).__name__)
            raise BehaviorError(f"the {self.role} {shown(value)} cannot be stored: {where}: {error}") from error

    def read(self, value: object, payload: bytes) -> Any:
        """What the bytes of that value are when they are read."""
        try:
            return self._decoder(value)(payload)
        except Exception as error:
            raise BehaviorError(
                f"the {self.role} {shown(value)} can be written and not be read: {type(value).__name__}: {error}"
            ) from error

    def _decoder(self, value: object) -> Callable[[bytes], Any]:
        names = self._codec.names
        identity = names.get(type(value)) or next(names[cls] for cls in names if isinstance(value, cls))
        return self._codec.decoders[identity]

    def _unwritable(self, value: object, path: str) -> str:
        """The path of the smallest part that cannot be written."""
        for name, part in (parts(value) or {}).items():
            try:
                self._codec.encode(part)
            except Exception:
                return self._unwritable(part, path + name)
        return path


def check_rejection(rejection: Rejection) -> None:
    """Raises `BehaviorError` if the rejection could not be remembered as it is."""
    try:
        again = decode_rejection(*encode_rejection(rejection))
    except EgoError as error:
        raise BehaviorError(f"the rejection {rejection!r} cannot be stored: {error}") from error
    lost = [*differences(rejection.__ego_fields__, again.__ego_fields__)]
    if lost:
        raise BehaviorError(
            f"the rejection {rejection!r} is not the same when it is read again: {_lines(lost, 'written', 'read')}"
        )


def _lines(found: list[Difference], first: str, second: str) -> str:
    return "; ".join(each.told(first, second) for each in found)
