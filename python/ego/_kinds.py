"""A kind of entity: a behavior class and what differs per kind."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ego._behaviors import AnyBehavior, Behavior, DurableStateBehavior, EventSourcedBehavior, is_behavior_class
from ego._config import check_int, check_seconds
from ego._errors import ConfigError
from ego._types import place

C = TypeVar("C")
S = TypeVar("S")


OPTIONS: Final = ("create", "passivate_after", "keep_command_ids", "keep_command_ids_for")
"""What may differ per kind, by name."""
MAX_COMMAND_IDS: Final = 65_536
MAX_SECONDS: Final = 366 * 86_400.0


class Kind(Generic[C, S]):
    """A behavior class together with what differs per kind.

    `create` makes the object of an entity from its id, for behaviors that need more than an id:
    `ego.Kind(Order, create=lambda entity_id: Order(entity_id, rates))`.

    `passivate_after` is for how many seconds an entity may be idle before it leaves the memory; the next command brings
    it back. `None`: it stays.

    `keep_command_ids` (0 to 65,536) and `keep_command_ids_for` (seconds) say for how many of its last commands, and for
    how long, an entity knows the `command_id` and what was answered.

    Seconds are above 0 and at most those of 366 days.
    """

    __slots__ = ("behavior", *OPTIONS)

    behavior: type[Behavior[C, S]]
    create: Callable[[str], Behavior[C, S]] | None
    passivate_after: float | None
    keep_command_ids: int
    keep_command_ids_for: float

    def __init__(
        self,
        behavior: type[Behavior[C, S]],
        *,
        create: Callable[[str], Behavior[C, S]] | None = None,
        passivate_after: float | None = None,
        keep_command_ids: int = 256,
        keep_command_ids_for: float = 86_400.0,
    ) -> None:
        check_behavior(behavior)
        if create is None:
            _check_made_from_an_id(behavior)
        elif not callable(create):
            raise ConfigError(f"create must be a function from an id to a behavior, not {create!r}", option="create")
        self.behavior = behavior
        self.create = create
        self.passivate_after = None if passivate_after is None else check_passivate_after(passivate_after)
        self.keep_command_ids = check_int("keep_command_ids", keep_command_ids, 0, MAX_COMMAND_IDS)
        self.keep_command_ids_for = _seconds("keep_command_ids_for", keep_command_ids_for)

    def __repr__(self) -> str:
        return f"ego.Kind({self.behavior.__name__})"


def check_behavior(behavior: object) -> None:
    """Refuses what is not a class of behaviors of one sort, with all its methods."""
    if not is_behavior_class(behavior):
        hint = "; give the class, not an object of it" if isinstance(behavior, Behavior) else ""
        raise ConfigError(
            "a behavior must be a subclass of ego.EventSourcedBehavior or ego.DurableStateBehavior, "
            f"not {behavior!r}{hint}"
        )
    if all(issubclass(behavior, sort) for sort in (EventSourcedBehavior, DurableStateBehavior)):
        raise ConfigError(
            f"{place(behavior)} is an ego.EventSourcedBehavior and an ego.DurableStateBehavior as well; "
            "derive it from one of them"
        )
    missing = sorted(behavior.__abstractmethods__)
    if missing:
        raise ConfigError(f"{place(behavior)} does not define {', '.join(missing)}")


def check_passivate_after(value: object) -> float:
    """A number of seconds after which an entity leaves the memory."""
    return _seconds("passivate_after", value)


def _seconds(option: str, value: object) -> float:
    seconds = check_seconds(option, value)
    if seconds is None or seconds > MAX_SECONDS:
        raise ConfigError(f"{option} must be above 0 and at most {MAX_SECONDS:.0f} seconds, not {value}", option=option)
    return seconds


def _check_made_from_an_id(behavior: type[AnyBehavior]) -> None:
    if all("__init__" not in cls.__dict__ for cls in behavior.__mro__ if cls not in (Behavior, object)):
        return
    import inspect

    try:
        inspect.signature(behavior).bind("id")
    except TypeError as error:
        raise ConfigError(
            f"{place(behavior)} cannot be made as {behavior.__name__}(entity_id) ({error}); "
            f"say how: ego.Kind({behavior.__name__}, create=lambda entity_id: {behavior.__name__}(entity_id, ...))"
        ) from error
