"""Which types are known to be immutable."""

import datetime
import decimal
import enum
import fractions
import uuid
from collections import UserDict
from dataclasses import dataclass
from types import new_class
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest

import ego
from ego._frozen import how_to_freeze, is_frozen


class FrozenStruct(msgspec.Struct, frozen=True):
    pass


class LooseStruct(msgspec.Struct):
    pass


Thawed = new_class("Thawed", (ego.State,), {"frozen": False})


@dataclass(frozen=True)
class FrozenData:
    pass


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    value: int = 0


@dataclass
class LooseData:
    pass


@attrs.frozen
class FrozenAttrs:
    pass


@attrs.define
class LooseAttrs:
    pass


class Named(NamedTuple):
    value: int


class Colour(enum.Enum):
    RED = 1


class Plain:
    pass


class LooseInt(int):
    pass


@pytest.mark.parametrize(
    "cls",
    [
        ego.Event, ego.State, FrozenStruct, FrozenData, FrozenSlots, FrozenAttrs, Named,
        Colour, bool, bytes, float, frozenset, int, str, tuple, type(None), decimal.Decimal, fractions.Fraction,
        uuid.UUID, datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
    ],
)  # fmt: skip
def test_immutable_types_are_known(cls: type) -> None:
    assert is_frozen(cls)


@pytest.mark.parametrize(
    ("cls", "hint"),
    [
        (LooseStruct, "class LooseStruct(msgspec.Struct, frozen=True)"),
        (Thawed, "class Thawed(msgspec.Struct, frozen=True)"),
        (LooseData, "@dataclass(frozen=True)"),
        (LooseAttrs, "@attrs.frozen"),
        (Plain, "class Plain(ego.State)"),
        (LooseInt, "class LooseInt(ego.State)"),
        (dict, "class dict(ego.State)"),
        (list, "another frozen class"),
        (UserDict, "another frozen class"),
    ],
)
def test_what_can_change_is_refused_with_what_to_write(cls: type[Any], hint: str) -> None:
    assert not is_frozen(cls)
    assert hint in how_to_freeze(cls)
