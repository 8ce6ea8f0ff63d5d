"""How a payload that was stored under an older version of its type is brought up to date.

An upcast goes from one version of a stored name to the next, on plain data: mappings, lists, numbers. From the oldest
version that has one to the version of a declared type there is one for each step. What is stored is never rewritten.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import msgspec

from ego._codec import Decode, Identity
from ego._config import check_int, check_name
from ego._errors import ConfigError, UpcastError
from ego._messages import MAX_VERSION

Function = Callable[[dict[str, Any]], Mapping[str, Any]]
F = TypeVar("F", bound=Function)

_functions: Final[dict[Identity, Function]] = {}
"""By the stored name and the version from which the function leads to the next."""


def upcast(name: str, *, from_version: int) -> Callable[[F], F]:
    """Says how a payload that is stored under that name and version becomes one of the next version.

    The function takes the stored fields as a `dict` of its own and returns a mapping. It holds in all engines of this
    process. The same function once more, from a module that was loaded again, takes the place of the older one.
    """
    step = (check_name("name", name), check_int("from_version", from_version, 1, MAX_VERSION - 1))

    def add(function: F) -> F:
        if not callable(function):
            raise ConfigError(f"an upcast must be a function from a mapping to a mapping, not {function!r}")
        known = _functions.get(step)
        if known is not None and _place(known) != _place(function):
            raise ConfigError(
                f"{_place(known)} and {_place(function)} are both upcasts of {name!r} from version {from_version}; "
                "leave one of them out"
            )
        _functions[step] = function
        return function

    return add


class Upcasting(msgspec.Struct, frozen=True):
    """Reads payloads of one older version."""

    name: str
    version: int
    steps: tuple[Function, ...]
    decode: Decode

    def __call__(self, payload: bytes) -> Any:
        """The value as the type that is declared now; what makes that impossible is an `UpcastError`."""
        fields: object = _decode(payload)
        if not isinstance(fields, dict):
            raise self._error(self.version, f"the stored payload is {type(fields).__name__} and not a mapping")
        for version, function in enumerate(self.steps, self.version):
            try:
                fields = function(cast("dict[str, Any]", fields))
            except Exception as error:
                raise self._error(version, f"{_place(function)} raised {error!r}") from error
            if not isinstance(cast("object", fields), Mapping):
                raise self._error(version, f"{_place(function)} returned {type(fields).__name__} and not a mapping")
            fields = dict(fields)
        try:
            return self.decode(_encode(fields))
        except Exception as error:
            newest = self.version + len(self.steps)
            raise self._error(newest - 1, f"what {_place(self.steps[-1])} returned does not fit: {error}") from error

    def _error(self, version: int, problem: str) -> UpcastError:
        return UpcastError(
            f"upcast of {self.name!r} from version {version} to {version + 1}: {problem}",
            name=self.name,
            version=version,
        )


def upcasting(kind: str, decoders: Mapping[Identity, Decode]) -> dict[Identity, Decode]:
    """What reads the older versions of what these decoders read, by the upcasts that there are by now.

    Raises `ConfigError` where a step is missing, leads past the declared types, or starts at one of them.
    """
    names = {name for name, _ in decoders}
    return {start: _from(kind, start, decoders) for start in sorted(_functions) if start[0] in names}


def _from(kind: str, start: Identity, decoders: Mapping[Identity, Decode]) -> Upcasting:
    name, version = start
    newest = max(declared for other, declared in decoders if other == name)
    if start in decoders:
        raise ConfigError(
            f"kind {kind}: {name!r} version {version} is a declared type, and {_place(_functions[start])} is an upcast "
            "from it; leave one of them out"
        )
    if version > newest:
        raise ConfigError(
            f"kind {kind}: {_place(_functions[start])} is an upcast of {name!r} from version {version} to "
            f"{version + 1}, and the declared type has version {newest}; raise it with @ego.stored"
        )
    steps: list[Function] = []
    while (decode := decoders.get((name, version))) is None:
        function = _functions.get((name, version))
        if function is None:
            raise ConfigError(
                f"kind {kind}: {name!r} has an upcast to version {version} and none from there to {version + 1}, and "
                f'the declared type has version {newest}; write @ego.upcast("{name}", from_version={version})'
            )
        steps.append(function)
        version += 1
    return Upcasting(name, start[1], tuple(steps), decode)


def _place(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode
