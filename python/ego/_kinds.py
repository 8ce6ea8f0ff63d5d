"""A kind of entity: a behavior class and what differs per kind."""

from collections.abc import Callable
from typing import Generic, TypeVar

from ego._behaviors import AnyBehavior, Behavior, DurableStateBehavior, EventSourcedBehavior, is_behavior_class
from ego._errors import ConfigError
from ego._types import place

C = TypeVar("C")
S = TypeVar("S")


class Kind(Generic[C, S]):
    """A behavior class together with what differs per kind.

    `create` makes the object of an entity from its id, for behaviors that need more than an id:
    `ego.Kind(Order, create=lambda entity_id: Order(entity_id, rates))`.
    """

    __slots__ = ("behavior", "create")

    behavior: type[Behavior[C, S]]
    create: Callable[[str], Behavior[C, S]] | None

    def __init__(
        self,
        behavior: type[Behavior[C, S]],
        *,
        create: Callable[[str], Behavior[C, S]] | None = None,
    ) -> None:
        check_behavior(behavior)
        if create is None:
            _check_made_from_an_id(behavior)
        elif not callable(create):
            raise ConfigError(f"create must be a function from an id to a behavior, not {create!r}", option="create")
        self.behavior = behavior
        self.create = create

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
