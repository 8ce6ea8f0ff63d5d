"""What a user gives as a handler, in the one shape that a runner calls."""

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, cast

from ego._errors import ConfigError
from ego._messages import stored_identity
from ego._seam import EventEnvelope
from ego._types import members

MAX_EVENT_TYPES = 1_024


class Handler:
    """Calls a function or a method with an envelope, or with a list of them, and a transaction where there is one."""

    def __init__(self, handler: object, *, takes_transaction: bool) -> None:
        found = _function_of(handler)
        self.call, self.takes_many = found
        _check_parameters(self.call, 2 if takes_transaction else 1, takes_transaction=takes_transaction)

    def annotated(self) -> list[type] | None:
        """The event types that its first parameter is annotated with; `None`: all."""
        form = self._first_annotation()
        if form is inspect.Parameter.empty:
            return None
        where = self.call
        while isinstance(where, functools.partial):
            where = where.func
        try:
            return _event_types(form, where if hasattr(where, "__qualname__") else type(where))
        except ConfigError as error:
            raise ConfigError(
                f"handler {self.call!r}: its annotation {form!r} cannot be read ({error}); say which events it wants "
                "with events=",
                option="events",
            ) from error

    def _first_annotation(self) -> object:
        try:
            parameters = inspect.signature(self.call).parameters
        except (TypeError, ValueError):
            return inspect.Parameter.empty
        return next(iter(parameters.values())).annotation


def names_of(events: object) -> list[str] | None:
    """The stored names of event types; `None` for all of them."""
    if events is None:
        return None
    if isinstance(events, str | type) or not isinstance(events, Iterable):
        raise ConfigError(f"events must be a list of event types, not {events!r}", option="events")
    given = list(cast("Iterable[object]", events))
    for each in given:
        if not isinstance(each, type):
            raise ConfigError(f"events must be a list of event types, and {each!r} is none", option="events")
    if not 1 <= len(given) <= MAX_EVENT_TYPES:
        raise ConfigError(f"events must be 1 to {MAX_EVENT_TYPES} event types, not {len(given)}", option="events")
    return [stored_identity(cast("type", each))[0] for each in given]


def _function_of(handler: object) -> tuple[Callable[..., object], bool]:
    one, many = getattr(handler, "handle", None), getattr(handler, "handle_batch", None)
    if callable(one) and callable(many):
        raise ConfigError(
            f"handler {handler!r} has both handle and handle_batch; keep the one that is meant", option="handler"
        )
    if callable(one):
        return one, False
    if callable(many):
        return many, True
    if callable(handler) and not isinstance(handler, type):
        return handler, False
    raise ConfigError(
        f"handler must be a function, or an object with handle() or handle_batch(), not {handler!r}", option="handler"
    )


def _check_parameters(call: Callable[..., object], count: int, *, takes_transaction: bool) -> None:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*range(count))
    except TypeError:
        takes = "(envelope, transaction), since it has into=" if takes_transaction else "(envelope)"
        raise ConfigError(f"handler {call!r} must take {takes}, and takes {signature}", option="handler") from None


def _event_types(form: object, where: object) -> list[type] | None:
    """The event types of an envelope, or of a list of them; `None` where that is no such thing, or open."""
    wanted = list[type]()
    for leaf in members(form, where):
        origin, arguments = typing.get_origin(leaf), typing.get_args(leaf)
        if origin is EventEnvelope:
            found = _classes(arguments[0], where)
        elif isinstance(origin, type) and issubclass(origin, cast("type", Iterable)) and arguments:
            found = _event_types(arguments[0], where)
        else:
            found = None
        if found is None:
            return None
        wanted += found
    return wanted


def _classes(form: object, where: object) -> list[type] | None:
    leaves = [typing.get_origin(leaf) or leaf for leaf in members(form, where)]
    if any(not isinstance(leaf, type) or leaf in (object, Any) for leaf in leaves):
        return None
    return leaves
