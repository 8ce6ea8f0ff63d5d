"""The kinds of one engine: checked once when they are registered, found by class or by name."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import msgspec

from ego._behaviors import AnyBehavior, DurableStateBehavior
from ego._codec import Identity, codec_of, one_name_twice
from ego._config import check_name
from ego._errors import ConfigError, HandlerResultError
from ego._frozen import how_to_freeze, is_frozen
from ego._kinds import OPTIONS, Kind
from ego._messages import State
from ego._seam import KindSpec, NativeEngine
from ego._types import Declared, place, type_arguments
from ego._upcasts import upcasting

_FINGERPRINT: Final = msgspec.msgpack.Encoder(order="deterministic").encode


class Registered:
    """A kind that passed its checks."""

    def __init__(self, kind: Kind[Any, Any]) -> None:
        self.kind = kind
        self.is_durable_state = issubclass(kind.behavior, DurableStateBehavior)
        self.name = check_name(f"{place(kind.behavior)}.kind", kind.behavior.kind)
        arguments = type_arguments(kind.behavior)
        _check_states(self.name, arguments.states)
        if self.is_durable_state:
            self.codec = codec_of(self.name, "state", arguments.states)
        else:
            self.codec = codec_of(self.name, "event", arguments.events)
        self.number = -1
        self._arguments = arguments
        self._current = self.codec.decoders
        self.follow_upcasts()

    def spec(self) -> KindSpec:
        """The kind as the native half wants it."""
        behavior: Any = self.kind.behavior
        return KindSpec(
            name=self.name,
            behavior=behavior,
            is_durable_state=self.is_durable_state,
            create=self._create,
            handle_command=behavior.handle_command,
            handle_event=None if self.is_durable_state else behavior.handle_event,
            initial_state=behavior.initial_state,
            state_types=_classes(self._arguments.states),
            command_types=None if self._arguments.commands is None else _classes(self._arguments.commands),
            stored_names=self.codec.names,
            decoders=self.codec.decoders,
            encode=self.codec.encode,
            fingerprint=_FINGERPRINT,
            keep_command_ids=self.kind.keep_command_ids,
            keep_command_ids_for=self.kind.keep_command_ids_for,
            passivate_after=self.kind.passivate_after,
        )

    def follow_upcasts(self) -> bool:
        """Takes in the upcasts that there are by now; whether that changes what reads the stored payloads.

        Raises `ConfigError` where they do not lead to the declared types.
        """
        decoders = self._current | upcasting(self.name, self._current)
        if decoders == self.codec.decoders:
            return False
        self.codec = self.codec._replace(decoders=decoders)
        return True

    def _create(self, entity_id: str, declared: AnyBehavior | None) -> AnyBehavior:
        made: object = declared
        if made is None:
            made = (self.kind.create or self.kind.behavior)(entity_id)
        if not isinstance(made, self.kind.behavior) or getattr(made, "id", None) != entity_id:
            raise HandlerResultError(
                f"{self.name}/{entity_id}: making it must give a {self.kind.behavior.__name__} with that id, "
                f"not {made!r}; does its __init__ call super().__init__(entity_id)?",
                kind=self.name,
                entity_id=entity_id,
            )
        return made


class Registry:
    """Every kind that one engine knows."""

    def __init__(self, native: NativeEngine) -> None:
        self._native = native
        self._by_class: dict[type, Registered] = {}
        self._by_name: dict[str, Registered] = {}
        self._stored_types: dict[Identity, type] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Registered]:
        return iter([*self._by_name.values()])

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> Registered | None:
        """The kind of that name, if it is registered."""
        return self._by_name.get(name)

    def of(self, behavior: type[AnyBehavior]) -> Registered:
        """The kind of a behavior class; registers it if it is new."""
        found = self._by_class.get(behavior)
        return found if found is not None else self.add(behavior)

    def add(self, behavior: type[AnyBehavior] | Kind[Any, Any]) -> Registered:
        """Registers a kind. The same once more is no error; anything else under its name is."""
        kind: Kind[Any, Any] = behavior if isinstance(behavior, Kind) else Kind(behavior)
        with self._lock:
            return self._add(kind)

    def _add(self, kind: Kind[Any, Any]) -> Registered:
        if (same := self._by_class.get(kind.behavior)) is not None:
            different = [name for name in OPTIONS if getattr(kind, name) != getattr(same.kind, name)]
            if different:
                raise ConfigError(f"{place(kind.behavior)} is registered twice, with different {', '.join(different)}")
            return same
        registered = Registered(kind)
        self._check_names(registered)
        registered.number = self._native.register(registered.spec(), None)
        self._by_class[kind.behavior] = registered
        self._by_name[registered.name] = registered
        self._stored_types.update({identity: cls for cls, identity in registered.codec.names.items()})
        return registered

    def follow_upcasts(self) -> None:
        """Has every kind read with the upcasts that there are by now. Called when an engine starts."""
        for registered in self:
            if registered.follow_upcasts():
                self._native.register(registered.spec(), registered.number)

    def _check_names(self, new: Registered) -> None:
        if (other := self._by_name.get(new.name)) is not None:
            raise ConfigError(
                f"{place(other.kind.behavior)} and {place(new.kind.behavior)} are both of kind {new.name!r}; "
                'give one of them another name with kind = "..."'
            )
        for cls, identity in new.codec.names.items():
            if (known := self._stored_types.get(identity, cls)) is not cls:
                raise one_name_twice(identity, known, cls)


def check_behaviors(behaviors: object) -> list[type[AnyBehavior] | Kind[Any, Any]]:
    """The behaviors as a list; what each of them is, is checked when it is registered."""
    if not isinstance(behaviors, Iterable) or isinstance(behaviors, str):
        raise ConfigError(f"behaviors must be a list of behavior classes, not {behaviors!r}", option="behaviors")
    return list(cast("Iterable[type[AnyBehavior] | Kind[Any, Any]]", behaviors))


def _check_states(kind: str, states: tuple[Declared, ...]) -> None:
    for cls, _ in states:
        if cls is State:
            raise ConfigError(f"kind {kind}: ego.State is the base of states and not a state; name the state type")
        if not is_frozen(cls):
            raise ConfigError(
                f"kind {kind}: the state type {place(cls)} is not frozen, so a change in place could show what is not "
                f"stored; {how_to_freeze(cls)}"
            )


def _classes(declared: tuple[Declared, ...]) -> tuple[type, ...]:
    return tuple(cls for cls, _ in declared)
