"""What a user writes: how an entity decides on a command, and what becomes of its state."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Generic, TypeAlias, TypeGuard, TypeVar

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")

Events: TypeAlias = E | Sequence[E] | None
Change: TypeAlias = tuple[S, int] | None


class Behavior(ABC, Generic[C, S]):
    """What both sorts of behaviors have: an id, a kind, and a state to begin with.

    There is one object per live entity, made as `Account(entity_id)`. It holds no state of its own: states are
    immutable values that the engine passes in and takes back.
    """

    __slots__ = ("id",)

    kind: ClassVar[str]
    """The kind's name in the store: the class's name, unless the class or one of its bases says `kind = "..."`."""

    id: str
    """The entity's id."""

    def __init__(self, entity_id: str) -> None:
        self.id = entity_id

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        given = next((base for base in cls.__mro__ if "kind" in base.__dict__), None)
        if given is None or given.__dict__.get("_kind_is_its_name", False):
            cls.kind = cls.__name__
            cls._kind_is_its_name = True
        elif given is cls:
            cls._kind_is_its_name = False

    _kind_is_its_name: ClassVar[bool]

    @abstractmethod
    def initial_state(self) -> S:
        """The state before anything has happened: revision or version 0."""


class EventSourcedBehavior(Behavior[C, S], Generic[C, E, S]):
    """An entity whose state is the fold of its events.

    The type arguments are its commands, its events and its state; several types are given as a union.
    """

    __slots__ = ()

    @abstractmethod
    def handle_command(self, command: C, state: S, /) -> Events[E] | Awaitable[Events[E]]:
        """Decides: returns one event, an exact `list` or `tuple` of events, `None`, or an awaitable of these.

        All events of a command are stored together or not at all. To refuse the command, raise: the exception reaches
        the caller as itself and nothing changes. An `async def` starts only when all it sees is durable.
        """

    @abstractmethod
    def handle_event(self, event: E, state: S, /) -> S:
        """The state after the event. Pure: it runs when the event happens and again whenever it is replayed."""


class DurableStateBehavior(Behavior[C, S]):
    """An entity whose state itself is stored, as it is after each command; what led to it is not kept.

    The type arguments are its commands and its state; several types are given as a union.
    """

    __slots__ = ()

    @abstractmethod
    def handle_command(self, command: C, version: int, state: S, /) -> Change[S] | Awaitable[Change[S]]:
        """Decides: returns the next state and its version, which is `version + 1`, or an awaitable of these.

        The next state is of the same type as the state. `None`, or the same version with an equal state, changes
        nothing. To refuse the command, raise: the exception reaches the caller as itself and nothing changes. An
        `async def` starts only when all it sees is durable.
        """


AnyBehavior: TypeAlias = Behavior[Any, Any]


def is_behavior_class(value: object) -> TypeGuard[type[AnyBehavior]]:
    """Whether it is a class of behaviors."""
    return isinstance(value, type) and issubclass(value, EventSourcedBehavior | DurableStateBehavior)
