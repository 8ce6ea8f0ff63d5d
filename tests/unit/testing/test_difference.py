"""Where two values differ."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest

from ego.testing._difference import differences


class Struct(msgspec.Struct, frozen=True):
    a: Any
    b: Any = 0


@dataclass(frozen=True)
class Data:
    a: Any
    b: Any = 0


@attrs.frozen
class Attrs:
    a: Any
    b: Any = 0


class Named(NamedTuple):
    a: Any
    b: Any = 0


class ByIdentity(msgspec.Struct, frozen=True, eq=False):
    a: Any
    b: Any = 0


def told(first: object, second: object) -> list[str]:
    return [each.told("one", "other") for each in differences(first, second)]


@pytest.mark.parametrize("cls", [Struct, Data, Attrs, Named, ByIdentity])
def test_every_sort_of_class_is_compared_field_by_field(cls: type[Any]) -> None:
    name = cls.__name__
    assert told(cls(1), cls(1)) == []
    assert told(cls(1), cls(2)) == [f"{name}.a: one 1, other 2"]
    assert told(cls(cls(1, 2)), cls(cls(3, 4))) == [f"{name}.a.a: one 1, other 3", f"{name}.a.b: one 2, other 4"]


def test_lists_and_mappings_are_compared_part_by_part_where_they_have_the_same_parts() -> None:
    assert told([1, [2, 3]], [1, [2, 4]]) == ["list[1][1]: one 3, other 4"]
    assert told({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ["dict['b']: one 2, other 3"]
    assert told([1], [1, 2]) == ["list: one [1], other [1, 2]"]
    assert told({"a": 1}, {"b": 1}) == ["dict: one {'a': 1}, other {'b': 1}"]


def test_types_count_at_the_top_and_equal_values_are_enough_below() -> None:
    assert told(Named(1), (1, 0)) == ["Named: one Named(a=1, b=0), other (1, 0)"]
    assert told(Struct(Named(1)), Struct((1, 0))) == []
    assert told(Struct(1), Struct(1.0)) == []
    assert told(Struct((1,)), Struct([1])) == ["Struct.a: one (1,), other [1]"]


def test_no_number_is_no_number() -> None:
    assert told(Struct(float("nan")), Struct(float("nan"))) == []
    assert told(Struct(float("nan")), Struct(0.0)) == ["Struct.a: one nan, other 0.0"]
