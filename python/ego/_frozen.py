"""Whether values of a type can change in place.

A state that is changed in place would leak refused and not yet durable changes, so only types that are known to be
immutable are accepted. The check is of the type itself: what its fields hold is not looked into.
"""

import enum
from typing import Any, Final

# By name, since importing all of their modules would double the time that `import ego` takes.
IMMUTABLE: Final = frozenset({
    "builtins.bool", "builtins.bytes", "builtins.complex", "builtins.float", "builtins.frozenset", "builtins.int",
    "builtins.NoneType", "builtins.str", "builtins.tuple", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "decimal.Decimal", "fractions.Fraction", "uuid.UUID",
})  # fmt: skip


def is_frozen(cls: type) -> bool:
    """True for frozen Structs, dataclasses and attrs classes, named tuples, enums and immutable builtins."""
    struct: Any = getattr(cls, "__struct_config__", None)
    if struct is not None:
        return bool(struct.frozen)
    dataclass: Any = getattr(cls, "__dataclass_params__", None)
    if dataclass is not None:
        return bool(dataclass.frozen)
    if hasattr(cls, "__attrs_attrs__"):
        return getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"
    if enum.Enum in cls.__mro__ or (tuple in cls.__mro__ and hasattr(cls, "_fields")):
        return True
    return f"{cls.__module__}.{cls.__qualname__}" in IMMUTABLE


def how_to_freeze(cls: type) -> str:
    """What to write instead."""
    if hasattr(cls, "__struct_config__"):
        return f"write class {cls.__name__}(msgspec.Struct, frozen=True)"
    if hasattr(cls, "__dataclass_params__"):
        return "write @dataclass(frozen=True)"
    if hasattr(cls, "__attrs_attrs__"):
        return "write @attrs.frozen"
    return f"write class {cls.__name__}(ego.State) or (ego.Event), or another frozen class that msgspec knows"
