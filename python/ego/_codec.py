"""How what one kind stores becomes bytes and comes back: its event types, or the types of a durable state.

A value's exact type gives its stored name and version; a stored name and version give the one decoder that may run.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from ego._errors import ConfigError
from ego._frozen import how_to_freeze, is_frozen
from ego._messages import Event, stored_identity
from ego._types import Declared, place

Identity = tuple[str, int]
Decode = Callable[[bytes], Any]


class Codec(NamedTuple):
    """What is needed to store the events or the states of one kind and to read them again."""

    names: dict[type, Identity]
    decoders: dict[Identity, Decode]
    encode: Callable[[Any], bytes]


def codec_of(kind: str, role: Literal["event", "state"], declared: Iterable[Declared]) -> Codec:
    """Builds the codec; refuses types that could not be told apart, could change, or could not be read again."""
    names: dict[type, Identity] = {}
    decoders: dict[Identity, Decode] = {}
    owners: dict[Identity, type] = {}
    for cls, form in declared:
        if cls is Event:
            raise ConfigError(f"kind {kind}: ego.Event is the base of events and not an event; name the event types")
        if not is_frozen(cls):
            raise ConfigError(f"kind {kind}: the {role} type {place(cls)} is not frozen; {how_to_freeze(cls)}")
        if cls in names:
            raise ConfigError(f"kind {kind}: {place(cls)} is declared in two forms that a value does not tell apart")
        identity = stored_identity(cls)
        if (other := owners.setdefault(identity, cls)) is not cls:
            raise one_name_twice(identity, other, cls)
        names[cls] = identity
        decoders[identity] = decoder_of(f"kind {kind}: {role}s of {place(cls)}", form)
    return Codec(names, decoders, msgspec.msgpack.Encoder().encode)


def one_name_twice(identity: Identity, first: type, second: type) -> ConfigError:
    """Two types under one stored name."""
    name, version = identity
    return ConfigError(
        f"{place(first)} and {place(second)} are both stored as {name!r} version {version}; "
        'give one of them another name with @ego.stored("...")'
    )


def decoder_of(what: str, form: Any) -> Decode:
    """What reads values of that type; refuses a type that msgspec cannot tell from another, or does not know."""
    try:
        decoder = msgspec.msgpack.Decoder(form)
        strangers = [place(each.cls) for each in _custom_types(form) if not _is_plain(each.cls)]
    except Exception as error:
        raise ConfigError(f"{what} cannot be read again: {error}") from error
    if strangers:
        raise ConfigError(f"{what} cannot be read again: msgspec does not know {', '.join(sorted(strangers))}")
    return decoder.decode


def _custom_types(form: Any) -> Iterator[msgspec.inspect.CustomType]:
    """The types within a type of which msgspec knows the name alone. It writes some of them and reads none."""
    waiting: list[Any] = [msgspec.inspect.type_info(form)]
    seen: set[int] = set()
    while waiting:
        info = waiting.pop()
        if isinstance(info, tuple):
            waiting += info
        elif isinstance(info, msgspec.inspect.CustomType):
            yield info
        elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
            seen.add(id(info))
            waiting += msgspec.structs.astuple(info)


def _is_plain(cls: type) -> bool:
    """Whether plain data can be of that type, as it can of `object` or `Hashable`."""
    plain: tuple[object, ...] = (None, 0, 0.5, "", b"", [], {})
    return any(isinstance(value, cls) for value in plain)
