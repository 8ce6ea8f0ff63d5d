"""Where two values differ, field by field, down to the smallest part."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

LONGEST: Final = 300


class Difference(NamedTuple):
    """One part that is not the same, such as `Account.by_month[3]`."""

    path: str
    first: object
    second: object

    def told(self, first: str, second: str) -> str:
        """As a line, with a word for each side."""
        return f"{self.path}: {first} {shown(self.first)}, {second} {shown(self.second)}"


def differences(first: object, second: object, path: str | None = None) -> Iterator[Difference]:
    """The parts that differ. Types count at the top; further down what counts is that values are equal."""
    top = path is None
    path = type(first).__name__ if path is None else path
    if (not top or type(first) is type(second)) and (first == second or _both_nan(first, second)):
        return
    if type(first) is type(second):
        ours, theirs = parts(first), parts(second)
        if ours is not None and theirs is not None and ours.keys() == theirs.keys():
            for name, part in ours.items():
                yield from differences(part, theirs[name], path + name)
            return
    yield Difference(path, first, second)


def parts(value: Any) -> dict[str, object] | None:
    """The parts of a value by how they are reached from it, `None` where it is not taken apart."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": part for key, part in cast("Mapping[object, object]", value).items()}
    names = _field_names(value)
    if names is not None:
        return {f".{name}": getattr(value, name) for name in names}
    if isinstance(value, list | tuple):
        return {f"[{index}]": part for index, part in enumerate(cast("list[object]", value))}
    return None


def _field_names(value: Any) -> tuple[str, ...] | None:
    if hasattr(value, "__struct_fields__"):
        return tuple(value.__struct_fields__)
    if hasattr(value, "__dataclass_fields__"):
        return tuple(value.__dataclass_fields__)
    if hasattr(value, "__attrs_attrs__"):
        return tuple(field.name for field in value.__attrs_attrs__)
    return tuple(value._fields) if hasattr(value, "_fields") and hasattr(value, "_asdict") else None


def _both_nan(first: object, second: object) -> bool:
    return isinstance(first, float) and isinstance(second, float) and first != first and second != second


def shown(value: object) -> str:
    """The value as text, cut where it is very long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"
