"""Refusals that are worth remembering."""

import copy
import gc
import importlib
import pickle
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import ego
from ego._rejections import decode_rejection, encode_rejection


class InsufficientFunds(ego.Rejection):
    missing: int
    currency: str = "EUR"


@ego.stored("bank.frozen", version=2)
class AccountFrozen(ego.Rejection):
    since: datetime
    reasons: "list[Reason]" = msgspec.field(default_factory=list)
    severity: ClassVar[int] = 3


class Reason(msgspec.Struct, frozen=True):
    text: str


class Closed(ego.Rejection):
    pass


class OverdrawnError(InsufficientFunds, LookupError):
    depth: float = msgspec.field(default_factory=float)

    @property
    def twice(self) -> int:
        return 2 * self.missing


SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALL = [
    InsufficientFunds(5),
    InsufficientFunds(missing=5, currency="USD"),
    AccountFrozen(SINCE, [Reason("fraud")]),
    Closed(),
    OverdrawnError(1, "EUR", 0.5),
]


def stored_again(rejection: ego.Rejection) -> BaseException:
    return decode_rejection(*encode_rejection(rejection))


def test_the_fields_are_read_as_attributes_and_cannot_be_set() -> None:
    rejection: Any = InsufficientFunds(5)
    assert (rejection.missing, rejection.currency, rejection.args) == (5, "EUR", (5, "EUR"))
    with pytest.raises(AttributeError):
        rejection.missing = 6
    assert AccountFrozen(SINCE).reasons == []
    assert AccountFrozen(SINCE).reasons is not AccountFrozen(SINCE).reasons
    assert AccountFrozen.severity == 3
    assert OverdrawnError(5).twice == 10


def test_a_rejection_shows_its_fields() -> None:
    assert str(InsufficientFunds(missing=5)) == "InsufficientFunds(missing=5, currency='EUR')"
    assert repr(Closed()) == str(Closed()) == "Closed()"
    assert traceback.format_exception_only(Closed())[-1].endswith(".Closed: Closed()\n")


@pytest.mark.parametrize("arguments", [{}, {"missing": 5, "mising": 5}])
def test_the_fields_are_given_as_they_are_declared(arguments: Any) -> None:
    with pytest.raises(TypeError, match="mis"):
        InsufficientFunds(**arguments)


def test_equal_are_those_of_one_class_with_equal_fields() -> None:
    assert InsufficientFunds(5) == InsufficientFunds(missing=5, currency="EUR")
    assert InsufficientFunds(5) != InsufficientFunds(6)
    assert InsufficientFunds(5) != OverdrawnError(5)
    assert Closed() != InsufficientFunds(5)
    assert len({InsufficientFunds(5), InsufficientFunds(5), InsufficientFunds(6), Closed(), Closed()}) == 3
    assert len({AccountFrozen(SINCE), AccountFrozen(SINCE)}) == 1


def test_a_rejection_is_raised_caught_and_matched_as_any_exception() -> None:
    with pytest.raises(ego.Rejection) as caught:
        try:
            raise KeyError("a-1")
        except KeyError as error:
            raise OverdrawnError(7) from error
    assert isinstance(caught.value.__cause__, KeyError)
    refused: Exception = caught.value
    match refused:
        case InsufficientFunds(missing, currency):
            assert (missing, currency) == (7, "EUR")
        case _:
            raise AssertionError
    assert isinstance(refused, LookupError)
    caught.value.add_note("seen")
    assert caught.value.with_traceback(None).__notes__ == ["seen"]


def test_a_rejection_is_none_of_the_errors_of_ego() -> None:
    assert not issubclass(ego.Rejection, ego.EgoError)


@pytest.mark.parametrize("rejection", ALL)
def test_a_rejection_is_copied_and_pickled_with_its_notes(rejection: ego.Rejection) -> None:
    rejection.__notes__ = ["seen"]
    for again in (copy.copy(rejection), copy.deepcopy(rejection), pickle.loads(pickle.dumps(rejection))):
        assert again is not rejection
        assert (again, again.args, again.__notes__) == (rejection, rejection.args, ["seen"])


@pytest.mark.parametrize("rejection", ALL)
def test_a_rejection_that_was_stored_is_the_same_again(rejection: ego.Rejection) -> None:
    again = stored_again(rejection)
    assert again == rejection
    assert type(again) is type(rejection)
    assert (again.args, str(again)) == (rejection.args, str(rejection))


def test_stored_are_a_name_a_version_and_the_fields() -> None:
    assert encode_rejection(Closed()) == ("Closed", 1, msgspec.msgpack.encode({}))
    name, version, payload = encode_rejection(AccountFrozen(SINCE, [Reason("fraud")]))
    assert (name, version) == ("bank.frozen", 2)
    assert msgspec.msgpack.decode(payload) == {
        "since": SINCE,
        "reasons": [{"text": "fraud"}],
    }


def test_a_field_that_came_later_has_its_default() -> None:
    again = decode_rejection("InsufficientFunds", 1, msgspec.msgpack.encode({"missing": 5, "gone": True}))
    assert again == InsufficientFunds(5, "EUR")


def test_a_class_with_a_constructor_of_its_own_is_read_without_it() -> None:
    class Refused(ego.Rejection):
        text: str

        def __init__(self, *words: str) -> None:
            super().__init__(text=" ".join(words))

    rejection = Refused("not", "today")
    assert rejection.text == "not today"
    assert stored_again(rejection) == copy.copy(rejection) == rejection


def test_a_name_that_no_class_has_is_said_so() -> None:
    with pytest.raises(ego.UnknownRejectionError, match=r"'bank\.frozen' version 1, and no ego\.Rejection") as caught:
        decode_rejection("bank.frozen", 1, b"\x80")
    assert isinstance(caught.value, ego.CodecError)
    assert (caught.value.name, caught.value.version) == ("bank.frozen", 1)


def test_fields_that_do_not_fit_are_said_so() -> None:
    with pytest.raises(
        ego.CodecError, match=r"no .*\.InsufficientFunds: Object missing required field `missing`"
    ) as caught:
        decode_rejection("InsufficientFunds", 1, b"\x80")
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)


def test_a_field_that_cannot_be_encoded_is_said_so() -> None:
    value: Any = object()
    with pytest.raises(ego.CodecError, match="InsufficientFunds cannot be encoded: ") as caught:
        encode_rejection(InsufficientFunds(value))
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_rejection_that_could_not_be_read_again_is_not_recorded() -> None:
    class Weird(ego.Rejection):
        values: dict[str, int] | dict[int, str]

    class Dangling(ego.Rejection):
        value: "Local"

    class Local(msgspec.Struct):
        pass

    for rejection in (Weird({}), Dangling(Local())):
        with pytest.raises(ego.ConfigError, match=f"{type(rejection).__name__} cannot be read again: "):
            encode_rejection(rejection)


def test_the_base_is_no_rejection() -> None:
    with pytest.raises(ego.ConfigError, match="is the base of rejections"):
        encode_rejection(ego.Rejection())


def test_two_places_with_one_name_are_refused_naming_both() -> None:
    @ego.stored("bank.twice")
    class First(ego.Rejection):
        pass

    assert stored_again(First()) == First()

    @ego.stored("bank.twice")
    class Second(ego.Rejection):
        pass

    for rejection in (First(), Second()):
        with pytest.raises(ego.ConfigError) as caught:
            encode_rejection(rejection)
        assert "First and " in str(caught.value)
        assert "Second are both stored as 'bank.twice' version 1" in str(caught.value)
    del Second, rejection, caught
    gc.collect()
    assert stored_again(First()) == First()


def test_a_module_that_is_loaded_again_brings_the_newer_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refusals_of_a_shop.py").write_text(
        "from __future__ import annotations\nimport ego\nclass SoldOut(ego.Rejection):\n    item: Item\nItem = str\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    module = importlib.import_module("refusals_of_a_shop")
    try:
        old = module.SoldOut("tea")
        assert stored_again(old) == old
        importlib.reload(module)
        again = stored_again(old)
        assert type(again) is module.SoldOut
        assert again != old
        assert str(again) == str(old)
    finally:
        del sys.modules["refusals_of_a_shop"]


@pytest.mark.parametrize("name", ["args", "add_note", "with_traceback"])
def test_a_field_may_not_hide_what_every_exception_has(name: str) -> None:
    with pytest.raises(ego.ConfigError, match=f"every exception has '{name}'"):
        type("Hiding", (ego.Rejection,), {"__annotations__": {name: int}})
