"""What a user writes: how an entity decides on a command, and what an event does to its state."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Generic, TypeAlias, TypeGuard, TypeVar

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")

Events: TypeAlias = E | Sequence[E] | None


class EventSourcedBehavior(ABC, Generic[C, E, S]):
    """An entity whose state is the fold of its events.

    The type arguments are its commands, its events and its state; several types are given as a union. There is one
    object per live entity, made as `Account(entity_id)`. It holds no state of its own: states are immutable values that
    the engine passes in and takes back.
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
        """The state at revision 0."""

    @abstractmethod
    def handle_command(self, command: C, state: S, /) -> Events[E] | Awaitable[Events[E]]:
        """Decides: returns one event, an exact `list` or `tuple` of events, `None`, or an awaitable of these.

        All events of a command are stored together or not at all. To refuse the command, raise: the exception reaches
        the caller as itself and nothing changes. An `async def` starts only when all it sees is durable.
        """

    @abstractmethod
    def handle_event(self, event: E, state: S, /) -> S:
        """The state after the event. Pure: it runs when the event happens and again whenever it is replayed."""


AnyBehavior: TypeAlias = EventSourcedBehavior[Any, Any, Any]


def is_behavior_class(value: object) -> TypeGuard[type[AnyBehavior]]:
    """Whether it is a class of behaviors."""
    return isinstance(value, type) and issubclass(value, EventSourcedBehavior)
