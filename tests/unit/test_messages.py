"""Commands, events, states and stored names."""

from typing import Any

import msgspec
import pytest

import ego
from ego._messages import stored_identity


class Deposited(ego.Event):
    amount: int


@pytest.mark.parametrize("base", [ego.Command, ego.Event, ego.State])
def test_messages_are_frozen_structs(base: type[msgspec.Struct]) -> None:
    message: Any = msgspec.defstruct("Message", [("value", int)], bases=(base,))(1)
    with pytest.raises(AttributeError):
        message.value = 2


def test_the_stored_name_is_the_qualified_name_unless_another_is_given() -> None:
    class Inner(ego.Event):
        pass

    assert stored_identity(Deposited) == ("Deposited", 1)
    qualified = "test_the_stored_name_is_the_qualified_name_unless_another_is_given.<locals>.Inner"
    assert stored_identity(Inner) == (qualified, 1)


def test_a_given_name_and_version_hold_for_that_class_alone() -> None:
    @ego.stored("bank.credited", version=2)
    class Credited(ego.Event):
        amount: int

    class Special(Credited):
        pass

    assert stored_identity(Credited) == ("bank.credited", 2)
    assert stored_identity(Special)[0].endswith("Special")


def test_the_stored_name_is_no_part_of_the_payload() -> None:
    @ego.stored("bank.credited")
    class Credited(ego.Event):
        amount: int

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Credited(5))) == {"amount": 5}


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "a\nb", "a\x7f", "\ud800", 5, None])
def test_a_stored_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ego.ConfigError, match="name must"):
        ego.stored(name)


@pytest.mark.parametrize("version", [0, -1, 2**32, 1.0, True, "1", None])
def test_a_version_is_a_positive_int(version: Any) -> None:
    with pytest.raises(ego.ConfigError, match="version must") as caught:
        ego.stored("bank.credited", version=version)
    assert caught.value.option == "version"
