"""Commands, events and states, and the names under which they are stored.

The stored identity of a type is a name and a version in its record's header. It is never an import path, so types can
be moved and renamed, and never part of the payload, so it alone decides which decoder runs.
"""

from collections.abc import Callable
from typing import Final, TypeVar, dataclass_transform

import msgspec

from ego._config import check_int, check_name

T = TypeVar("T")

STORED_ATTRIBUTE: Final = "__ego_stored__"
MAX_VERSION: Final = 2**32 - 1


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, frozen=True):
    """Base of commands: a frozen `msgspec.Struct`. A command is never stored, so any other object serves as well."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True):
    """Base of events: a frozen `msgspec.Struct`. A frozen dataclass or attrs class serves as well."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class State(msgspec.Struct, frozen=True):
    """Base of states: a frozen `msgspec.Struct`. Any other immutable value serves as well.

    A durable state is stored, so msgspec has to know its type.
    """


def stored(name: str, *, version: int = 1) -> Callable[[type[T]], type[T]]:
    """Gives an event, a durable state or a rejection the name and version under which it is stored.

    Without it the name is the class's `__qualname__` and the version is 1. It holds for the decorated class alone, not
    for its subclasses.
    """
    identity = (check_name("name", name), check_int("version", version, 1, MAX_VERSION))

    def give(cls: type[T]) -> type[T]:
        setattr(cls, STORED_ATTRIBUTE, identity)
        return cls

    return give


def stored_identity(cls: type) -> tuple[str, int]:
    """The name and version under which values of this type are stored."""
    given: tuple[str, int] | None = cls.__dict__.get(STORED_ATTRIBUTE)
    return given if given is not None else (check_name("the stored name", cls.__qualname__), 1)
