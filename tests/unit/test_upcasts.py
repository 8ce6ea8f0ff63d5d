"""Payloads of older versions are brought up to date when they are read."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec
import pytest

import ego
from ego import _upcasts
from ego._registry import Registered


class Deposit(ego.Command):
    amount: int


class Balance(ego.State):
    amount: int = 0


@ego.stored("bank.credited", version=3)
class Credited(ego.Event):
    cents: int
    currency: str
    at: datetime | None = None
    tags: tuple[str, ...] = ()


E = TypeVar("E")


class Bank(ego.EventSourcedBehavior[Deposit, E, Balance], Generic[E]):
    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Deposit, state: Balance) -> None:
        return None

    def handle_event(self, event: E, state: Balance) -> Balance:
        return state


class Account(Bank[Credited]):
    pass


@ego.stored("bank.profile", version=2)
class Profile(ego.State):
    first: str
    last: str


class Person(ego.DurableStateBehavior[Deposit, Profile]):
    def initial_state(self) -> Profile:
        return Profile("", "")

    def handle_command(self, command: Deposit, version: int, state: Profile) -> None:
        return None


@pytest.fixture(autouse=True)
def only_the_upcasts_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upcasts, "_functions", {})


def to_cents(old: dict[str, Any]) -> dict[str, Any]:
    return {"cents": old.pop("euros") * 100, **old}


def with_currency(old: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType({**old, "currency": "EUR"})


def register(*steps: tuple[int, Callable[[dict[str, Any]], Mapping[str, Any]]]) -> None:
    for version, function in steps:
        ego.upcast("bank.credited", from_version=version)(function)


def read(version: int, payload: object, behavior: type[Any] = Account, name: str = "bank.credited") -> Any:
    return Registered(ego.Kind(behavior)).codec.decoders[name, version](msgspec.msgpack.encode(payload))


def refused(behavior: type[Any] = Account) -> str:
    with pytest.raises(ego.ConfigError) as caught:
        ego.Engine("bank", ego.MemoryStore(), behaviors=[behavior])
    return str(caught.value)


def failure(version: int, payload: object) -> ego.UpcastError:
    with pytest.raises(ego.UpcastError) as caught:
        read(version, payload)
    assert caught.value.name == "bank.credited"
    return caught.value


def test_upcasts_are_chained_up_to_the_declared_version() -> None:
    register((2, with_currency), (1, to_cents))
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert read(1, {"euros": 5, "at": at, "tags": ["a"]}) == Credited(500, "EUR", at, ("a",))
    assert read(2, {"cents": 5}) == Credited(5, "EUR")
    assert read(3, {"cents": 5, "currency": "USD"}) == Credited(5, "USD")


def test_a_durable_state_is_brought_up_to_date_as_well() -> None:
    @ego.upcast("bank.profile", from_version=1)
    def split(old: dict[str, Any]) -> dict[str, Any]:
        first, last = old["name"].split()
        return {"first": first, "last": last}

    assert read(1, {"name": "Ada Lovelace"}, Person, "bank.profile") == Profile("Ada", "Lovelace")


def test_a_new_field_with_a_default_needs_no_upcast() -> None:
    assert read(3, {"cents": 5, "currency": "USD", "gone": 1}) == Credited(5, "USD", None, ())


def test_an_upcast_stays_a_function() -> None:
    assert ego.upcast("bank.credited", from_version=1)(to_cents) is to_cents


def test_upcasts_of_other_names_are_left_alone() -> None:
    ego.upcast("bank.debited", from_version=7)(to_cents)
    assert set(Registered(ego.Kind(Account)).codec.decoders) == {("bank.credited", 3)}


def test_a_declared_type_of_an_older_version_ends_the_chain() -> None:
    @ego.stored("bank.credited", version=2)
    class OldCredited(ego.Event):
        cents: int

    class Both(Bank[Credited | OldCredited]):
        pass

    register((1, to_cents))
    assert read(1, {"euros": 5}, Both) == OldCredited(500)
    register((2, with_currency))
    assert "version 2 is a declared type, and " in refused(Both)


def test_a_gap_is_refused_naming_the_missing_step() -> None:
    register((1, to_cents))
    text = refused()
    assert "kind Account: 'bank.credited' has an upcast to version 2 and none from there to 3" in text
    assert '@ego.upcast("bank.credited", from_version=2)' in text


@pytest.mark.parametrize("version", [4, 5])
def test_an_upcast_past_the_declared_version_is_refused(version: int) -> None:
    register((version, to_cents))
    text = refused()
    assert f"to_cents is an upcast of 'bank.credited' from version {version} to {version + 1}" in text
    assert "the declared type has version 3" in text


def test_an_upcast_from_the_declared_version_is_refused() -> None:
    register((3, to_cents))
    text = refused()
    assert "kind Account: 'bank.credited' version 3 is a declared type, and " in text
    assert "to_cents is an upcast from it" in text


def test_a_second_function_for_a_step_is_refused_naming_both() -> None:
    register((1, to_cents))
    register((1, to_cents))
    with pytest.raises(ego.ConfigError) as caught:
        register((1, with_currency))
    assert "to_cents and " in str(caught.value)
    assert "with_currency are both upcasts of 'bank.credited' from version 1" in str(caught.value)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "upcasts_of_a_bank.py"
    sys.modules.pop("upcasts_of_a_bank", None)


def test_a_module_that_is_loaded_again_brings_the_newer_function(module: Path) -> None:
    text = (
        "import ego\n"
        "@ego.upcast('bank.credited', from_version=2)\n"
        "def add(old):\n"
        "    return {**old, 'currency': 'EUR'}\n"
    )
    module.write_text(text)
    loaded = importlib.import_module("upcasts_of_a_bank")
    kind = Registered(ego.Kind(Account))
    module.write_text(text.replace("EUR", "EURO"))
    importlib.reload(loaded)
    assert kind.follow_upcasts()
    assert kind.codec.decoders["bank.credited", 2](msgspec.msgpack.encode({"cents": 5})) == Credited(5, "EURO")


def test_upcasts_that_came_after_the_kind_are_taken_in_once() -> None:
    kind = Registered(ego.Kind(Account))
    assert not kind.follow_upcasts()
    register((2, with_currency))
    assert kind.follow_upcasts()
    assert not kind.follow_upcasts()
    assert kind.codec.decoders["bank.credited", 2](msgspec.msgpack.encode({"cents": 5})) == Credited(5, "EUR")
    register((4, to_cents))
    for _ in range(2):
        with pytest.raises(ego.ConfigError, match="the declared type has version 3"):
            kind.follow_upcasts()


def test_a_function_that_raises_is_named_with_its_step() -> None:
    register((1, to_cents), (2, with_currency))
    error = failure(1, {"cents": 5})
    assert "upcast of 'bank.credited' from version 1 to 2: " in str(error)
    assert "to_cents raised KeyError('euros')" in str(error)
    assert isinstance(error.__cause__, KeyError)
    assert isinstance(error, ego.CodecError)
    assert error.version == 1


@pytest.mark.parametrize("result", [None, 5, [], [("cents", 5)], Balance(5)])
def test_a_function_that_returns_no_mapping_is_named_with_its_step(result: Any) -> None:
    register((1, to_cents), (2, lambda old: result))
    error = failure(1, {"euros": 5})
    assert error.version == 2
    assert f"<lambda> returned {type(result).__name__} and not a mapping" in str(error)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cents": 5}, "missing required field `currency`"),
        ({"cents": "5", "currency": "EUR"}, "Expected `int`, got `str`"),
        ({"cents": 5, "currency": object()}, "type object is unsupported"),
    ],
)
def test_what_does_not_fit_the_declared_type_is_said_so(fields: dict[str, Any], reason: str) -> None:
    register((1, to_cents), (2, lambda old: fields))
    error = failure(1, {"euros": 5})
    assert "from version 2 to 3: what " in str(error)
    assert "<lambda> returned does not fit: " in str(error)
    assert reason in str(error)
    assert error.__cause__ is not None


def test_a_payload_that_is_no_mapping_is_said_so() -> None:
    register((2, with_currency))
    assert "the stored payload is list and not a mapping" in str(failure(2, [5]))


@pytest.mark.parametrize("version", [0, -1, 2**32 - 1, 1.0, True, "1", None])
def test_the_version_is_one_that_has_a_next(version: Any) -> None:
    with pytest.raises(ego.ConfigError, match="from_version must be") as caught:
        ego.upcast("bank.credited", from_version=version)
    assert caught.value.option == "from_version"


@pytest.mark.parametrize("name", ["", "a\nb", 5])
def test_the_name_is_one_that_can_be_stored(name: Any) -> None:
    with pytest.raises(ego.ConfigError, match="name must"):
        ego.upcast(name, from_version=1)


def test_an_upcast_is_a_function() -> None:
    function: Any = 5
    with pytest.raises(ego.ConfigError, match="an upcast must be a function"):
        ego.upcast("bank.credited", from_version=1)(function)
