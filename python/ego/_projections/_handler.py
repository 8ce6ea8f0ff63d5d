"""What a user gives as a handler, in the one shape that a runner calls."""

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, cast

from ego._errors import ConfigError
from ego._messages import stored_identity
from ego._seam import EventEnvelope

MAX_EVENT_TYPES = 1_024


class Handler:
    """Calls a function or a method with an envelope, or with a list of them, and a transaction where there is one."""

    def __init__(self, handler: object, *, takes_transaction: bool) -> None:
        found = _function_of(handler)
        self.call, self.takes_many = found
        _check_parameters(self.call, 2 if takes_transaction else 1, takes_transaction=takes_transaction)

    def annotated(self) -> list[type] | None:
        """The event types that its first parameter is annotated with; `None`: all."""
        function = inspect.unwrap(self.call)
        try:
            hints = typing.get_type_hints(function)
            first = next(iter(inspect.signature(self.call).parameters))
        except (NameError, TypeError, ValueError, StopIteration):
            return None
        return _event_types(hints.get(first))


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


def _event_types(form: Any) -> list[type] | None:
    origin, arguments = typing.get_origin(form), typing.get_args(form)
    if origin in (typing.Union, types.UnionType):
        members = [_event_types(each) for each in arguments]
        return None if any(each is None for each in members) else [one for each in members for one in each or ()]
    if origin is EventEnvelope:
        return _classes(arguments[0])
    if origin in (list, tuple) or (isinstance(origin, type) and issubclass(origin, typing.cast("type", Iterable))):
        return _event_types(arguments[0]) if arguments else None
    return None


def _classes(form: Any) -> list[type] | None:
    if typing.get_origin(form) in (typing.Union, types.UnionType):
        members = [_classes(each) for each in typing.get_args(form)]
        return None if any(each is None for each in members) else [one for each in members for one in each or ()]
    return [form] if isinstance(form, type) and form not in (object, Any) else None
