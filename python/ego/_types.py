"""Which command, event and state types a behavior declares: its type arguments, followed to concrete classes.

Unions, aliases (plain, `TypeAlias`, `type` statements), `Annotated`, `NewType`, forward references to module level
names, subclasses of behaviors and generic bases are followed. Nothing is imported and no handler is called.
"""

import sys
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, NamedTuple, TypeVar, Union, cast, get_args, get_origin

from ego._behaviors import AnyBehavior, DurableStateBehavior, EventSourcedBehavior, is_behavior_class
from ego._errors import ConfigError


class Declared(NamedTuple):
    """One concrete type: the class of its values and, for a generic class, the full form to decode."""

    cls: type
    form: Any


class TypeArguments(NamedTuple):
    """What a behavior declares. `commands` is `None` where any object is accepted; a durable state has no `events`."""

    commands: tuple[Declared, ...] | None
    events: tuple[Declared, ...]
    states: tuple[Declared, ...]


Environment = Mapping[object, tuple[Any, ...]]


def type_arguments(behavior: type[AnyBehavior]) -> TypeArguments:
    """The types that the behavior declares.

    Raises `ConfigError` where it gives none, or gives one that names no concrete class.
    """
    found = _bound(behavior, {})
    if found is None:
        raise _missing(behavior, f"{place(behavior)} does not say which types it works with")
    commands, *rest, states = found
    events = rest[0] if rest else None
    return TypeArguments(
        commands=None if Any in commands or object in commands else _declared(behavior, "command", commands),
        events=() if events is None else _declared(behavior, "event", events),
        states=_declared(behavior, "state", states),
    )


def place(cls: type) -> str:
    """Where a class was written, for messages."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _missing(behavior: type, problem: str) -> ConfigError:
    if issubclass(behavior, DurableStateBehavior):
        form, example = "DurableStateBehavior[MyCommand, MyState]", "[Rename | Retire, Profile]"
    else:
        form = "EventSourcedBehavior[MyCommand, MyEvent, MyState]"
        example = "[Deposit | Withdraw, Deposited | Withdrawn, Balance]"
    return ConfigError(
        f"{problem}; write class {behavior.__name__}(ego.{form}), with unions where there are several: {example}"
    )


def _bound(cls: type, environment: Environment) -> tuple[tuple[Any, ...], ...] | None:
    """The members of the type arguments as `cls` binds them, `None` where it leaves them out."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin: Any = get_origin(base) or base
        if not is_behavior_class(origin):
            continue
        arguments = [tuple(_members(argument, environment, cls)) for argument in get_args(base)]
        if origin in (EventSourcedBehavior, DurableStateBehavior):
            return tuple(arguments) if arguments else None
        parameters: tuple[object, ...] = getattr(origin, "__parameters__", ())
        return _bound(origin, dict(zip(parameters, arguments, strict=False)))
    return None


def members(form: object, where: object) -> Iterator[Any]:
    """The leaves of a type expression that stands in the module of `where`, a class or a function."""
    return _members(form, {}, cast("type", where))


def _members(form: Any, environment: Environment, where: type) -> Iterator[Any]:
    """The leaves of a type expression."""
    if form in (None, NoneType):
        yield NoneType
    elif isinstance(form, TypeVar):
        default = getattr(form, "__default__", None)
        if form in environment:
            yield from environment[form]
        elif default is not None and getattr(form, "has_default", bool)():
            yield from _members(default, environment, where)
        else:
            yield form
    elif isinstance(form, str | ForwardRef):
        yield from _members(_looked_up(form, where), environment, where)
    elif get_origin(form) in (Union, UnionType):
        for argument in get_args(form):
            yield from _members(argument, environment, where)
    elif get_origin(form) is Annotated:
        yield from _members(get_args(form)[0], environment, where)
    elif hasattr(form, "__supertype__"):
        yield from _members(form.__supertype__, environment, where)
    elif (alias := _alias(form)) is not None:
        arguments = (tuple(_members(argument, environment, where)) for argument in get_args(form))
        inner = dict(zip(alias.__type_params__, arguments, strict=False))
        yield from _members(_value(alias, where), inner, where)
    else:
        yield form


def _alias(form: Any) -> Any:
    """The `type X = ...` behind a form, by its shape: the interpreter's own class or the one of typing_extensions."""
    for candidate in (get_origin(form), form):
        if hasattr(candidate, "__value__") and hasattr(candidate, "__type_params__"):
            return candidate
    return None


def _value(alias: Any, where: type) -> Any:
    try:
        return alias.__value__
    except NameError as error:
        raise ConfigError(f"{place(where)}: the alias {alias} names an unknown type: {error}") from error


def _looked_up(form: str | ForwardRef, where: type) -> Any:
    text = form if isinstance(form, str) else form.__forward_arg__
    names = vars(sys.modules[where.__module__]) if where.__module__ in sys.modules else {}
    try:
        return cast(object, eval(text, dict(names)))
    except Exception as error:
        raise ConfigError(
            f"{place(where)}: the type argument {text!r} is not the name of a type at the top of its module ({error}); "
            "define the type above the behavior and write it without quotes"
        ) from error


def _declared(behavior: type, parameter: str, members: tuple[Any, ...]) -> tuple[Declared, ...]:
    declared: dict[Any, Declared] = {}
    for form in members:
        if isinstance(form, TypeVar):
            raise _missing(behavior, f"{place(behavior)} leaves its {parameter} type open ({form.__name__})")
        cls = get_origin(form) or form
        if not isinstance(cls, type) or cls in (object, Any):
            raise _missing(
                behavior, f"{place(behavior)} declares as {parameter} something that is not a class: {form!r}"
            )
        declared.setdefault(form, Declared(cls, form))
    return tuple(declared.values())
