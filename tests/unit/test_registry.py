"""Kinds are checked once, when they are registered."""

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from types import NoneType, new_class
from typing import Any, Generic, TypeVar

import attrs
import msgspec
import pytest

import ego
from ego._registry import Registered


class Open(ego.Command):
    pass


class Opened(ego.Event):
    pass


class Door(ego.State):
    is_open: bool = False


E = TypeVar("E")
S = TypeVar("S")


class Anything(ego.EventSourcedBehavior[Open, E, S], Generic[E, S]):
    """A behavior with all its methods, for any event and state."""

    def initial_state(self) -> S:
        raise NotImplementedError

    def handle_command(self, command: Open, state: S) -> None:
        raise NotImplementedError

    def handle_event(self, event: E, state: S) -> S:
        raise NotImplementedError


class DoorBehavior(Anything[Opened, Door]):
    pass


class Durable(ego.DurableStateBehavior[Open, S], Generic[S]):
    """The same for a durable state."""

    def initial_state(self) -> S:
        raise NotImplementedError

    def handle_command(self, command: Open, version: int, state: S) -> None:
        raise NotImplementedError


def engine(*behaviors: Any) -> ego.Engine:
    return ego.Engine("doors", ego.MemoryStore(), behaviors=behaviors)


def refused(*behaviors: Any) -> str:
    with pytest.raises(ego.ConfigError) as caught:
        engine(*behaviors)
    return str(caught.value)


def test_the_kind_is_the_class_name_unless_one_is_given() -> None:
    class Named(DoorBehavior):
        kind = "door"

    class Child(Named):
        pass

    class Unnamed(DoorBehavior):
        pass

    assert (DoorBehavior.kind, Named.kind, Child.kind, Unnamed.kind) == ("DoorBehavior", "door", "door", "Unnamed")


@pytest.mark.parametrize("kind", ["", "x" * 256, "a\nb", 5, None])
def test_a_kind_that_is_no_name_is_refused(kind: Any) -> None:
    named: Any = type("Named", (DoorBehavior,), {"kind": kind})
    assert ".Named.kind must" in refused(named)


@pytest.mark.parametrize("behavior", [5, "Door", int, Door, DoorBehavior("a"), None])
def test_what_is_no_behavior_class_is_refused(behavior: Any) -> None:
    text = refused(behavior)
    assert "a behavior must be a subclass of ego.EventSourcedBehavior or ego.DurableStateBehavior, not" in text


@pytest.mark.parametrize("behaviors", [DoorBehavior, ego.Kind(DoorBehavior), "DoorBehavior", None, 5])
def test_behaviors_are_a_list(behaviors: Any) -> None:
    with pytest.raises(ego.ConfigError, match="behaviors must be a list of behavior classes, not ") as caught:
        ego.Engine("doors", ego.MemoryStore(), behaviors=behaviors)
    assert caught.value.option == "behaviors"


def test_an_object_in_place_of_its_class_is_said_so() -> None:
    assert "give the class, not an object of it" in refused(DoorBehavior("a"))


def test_a_behavior_without_its_methods_is_refused() -> None:
    class Half(ego.EventSourcedBehavior[Open, Opened, Door]):
        def initial_state(self) -> Door:
            return Door()

    assert "Half does not define handle_command, handle_event" in refused(Half)


def test_one_name_for_two_classes_is_refused_naming_both() -> None:
    class First(DoorBehavior):
        kind = "door"

    class Second(DoorBehavior):
        kind = "door"

    text = refused(First, Second)
    assert "First and " in text
    assert "Second are both of kind 'door'" in text


def test_the_same_kind_once_more_is_no_error() -> None:
    assert not engine(DoorBehavior, DoorBehavior, ego.Kind(DoorBehavior)).started


def test_one_class_with_different_options_is_refused_naming_them() -> None:
    text = refused(DoorBehavior, ego.Kind(DoorBehavior, create=DoorBehavior, passivate_after=60))
    assert text.endswith("DoorBehavior is registered twice, with different create, passivate_after")
    assert "different keep_command_ids" in refused(ego.Kind(DoorBehavior, keep_command_ids=0), DoorBehavior)
    assert "different keep_command_ids_for" in refused(ego.Kind(DoorBehavior, keep_command_ids_for=1.5), DoorBehavior)
    same = ego.Kind(DoorBehavior, passivate_after=None, keep_command_ids=256, keep_command_ids_for=86_400)
    assert not engine(DoorBehavior, same).started


def test_two_events_under_one_stored_name_are_refused_naming_both() -> None:
    @ego.stored("door.opened")
    class First(ego.Event):
        pass

    @ego.stored("door.opened")
    class Second(ego.Event):
        pass

    class Both(Anything[First | Second, Door]):
        pass

    class OnlyFirst(Anything[First, Door]):
        pass

    class OnlySecond(Anything[Second, Door]):
        pass

    for text in (refused(Both), refused(OnlyFirst, OnlySecond)):
        assert "First and " in text
        assert "Second are both stored as 'door.opened' version 1" in text


def test_versions_of_one_stored_name_live_side_by_side() -> None:
    @ego.stored("door.opened")
    class Old(ego.Event):
        pass

    @ego.stored("door.opened", version=2)
    class New(ego.Event):
        by: str

    class Both(Anything[Old | New, Door]):
        pass

    assert not engine(Both).started


class LooseStruct(msgspec.Struct):
    value: int = 0


@dataclass
class LooseData:
    value: int = 0


@attrs.define
class LooseAttrs:
    value: int = 0


class Plain:
    pass


@pytest.mark.parametrize("loose", [LooseStruct, LooseData, LooseAttrs, Plain, dict, list, bytearray])
def test_a_state_that_is_not_frozen_is_refused(loose: Any) -> None:
    class Unsafe(Anything[Opened, loose]):
        pass

    text = refused(Unsafe)
    assert f"the state type {loose.__module__}.{loose.__qualname__} is not frozen" in text
    assert "write " in text


@pytest.mark.parametrize("loose", [LooseStruct, LooseData, LooseAttrs, Plain])
def test_an_event_that_is_not_frozen_is_refused(loose: Any) -> None:
    class Unsafe(Anything[Opened | loose, Door]):
        pass

    assert f"the event type {loose.__module__}.{loose.__qualname__} is not frozen" in refused(Unsafe)


def test_the_bases_are_no_message_types() -> None:
    class AnyEvent(Anything[ego.Event, Door]):
        pass

    class AnyState(Anything[Opened, ego.State]):
        pass

    assert "ego.Event is the base of events" in refused(AnyEvent)
    assert "ego.State is the base of states" in refused(AnyState)


def test_an_event_that_could_not_be_read_again_is_refused() -> None:
    class Weird(ego.Event):
        values: dict[str, int] | dict[int, str]

    class Behavior(Anything[Weird, Door]):
        pass

    assert "Weird cannot be read again: " in refused(Behavior)


class Shape:
    pass


@dataclass(frozen=True)
class Square(Shape):
    side: int


@dataclass(frozen=True)
class Drawing:
    shapes: list[dict[str, Shape | None]]
    within: "Drawing | None" = None


class Drawn(ego.Event):
    drawing: Drawing


class Loose(ego.Event):
    anything: Any
    value: object
    key: Hashable
    again: "Loose | None" = None


def test_an_event_with_something_inside_that_could_not_be_read_again_is_refused() -> None:
    class Behavior(Anything[Drawn, Door]):
        pass

    class Free(Anything[Loose, Door]):
        pass

    text = refused(Behavior)
    assert f"events of {__name__}.Drawn cannot be read again: msgspec does not know {__name__}.Shape" in text
    event = Loose([1], "x", 5, Loose(None, {}, "k"))
    codec = registered(Free).codec
    assert codec.decoders["Loose", 1](codec.encode(event)) == event


def test_two_forms_of_one_generic_event_are_refused() -> None:
    class Wrapped(ego.Event, Generic[S]):
        value: S

    class Behavior(Anything[Wrapped[int] | Wrapped[str], Door]):
        pass

    assert "declared in two forms" in refused(Behavior)


class NeedsRates(DoorBehavior):
    def __init__(self, entity_id: str, rates: dict[str, int]) -> None:
        super().__init__(entity_id)
        self.rates = rates


def test_a_behavior_that_needs_more_than_an_id_is_told_how_to_be_registered() -> None:
    text = refused(NeedsRates)
    assert "NeedsRates cannot be made as NeedsRates(entity_id)" in text
    assert "ego.Kind(NeedsRates, create=lambda entity_id: NeedsRates(entity_id, ...))" in text
    assert not engine(ego.Kind(NeedsRates, create=lambda entity_id: NeedsRates(entity_id, {}))).started


def test_create_is_a_function() -> None:
    create: Any = NeedsRates("a", {})
    with pytest.raises(ego.ConfigError, match="create must be a function") as caught:
        ego.Kind(NeedsRates, create=create)
    assert caught.value.option == "create"


def registered(behavior: type[Any]) -> Registered:
    return Registered(ego.Kind(behavior))


def test_what_an_event_sourced_kind_stores_is_its_events() -> None:
    kind = registered(DoorBehavior)
    assert not kind.is_durable_state
    assert kind.codec.names == {Opened: ("Opened", 1)}


def test_what_a_durable_state_stores_is_its_states() -> None:
    @ego.stored("door.shut", version=3)
    class Shut(ego.State):
        locked: bool

    class Behavior(Durable[Door | Shut | None]):
        pass

    kind = registered(Behavior)
    assert kind.is_durable_state
    assert kind.codec.names == {Door: ("Door", 1), Shut: ("door.shut", 3), NoneType: ("NoneType", 1)}
    for state in (Door(is_open=True), Shut(locked=False), None):
        stored = kind.codec.names[type(state)]
        assert kind.codec.decoders[stored](kind.codec.encode(state)) == state


def test_a_behavior_of_both_sorts_is_refused() -> None:
    both: Any = new_class("Both", (DoorBehavior, Durable[Door]))
    assert "Both is an ego.EventSourcedBehavior and an ego.DurableStateBehavior as well" in refused(both)


def test_a_durable_state_without_its_methods_is_refused() -> None:
    class Half(ego.DurableStateBehavior[Open, Door]):
        pass

    assert "Half does not define handle_command, initial_state" in refused(Half)


@pytest.mark.parametrize("loose", [LooseStruct, LooseData, LooseAttrs, Plain, dict, bytearray])
def test_a_durable_state_that_is_not_frozen_is_refused(loose: Any) -> None:
    class Unsafe(Durable[loose]):
        pass

    text = refused(Unsafe)
    assert f"the state type {loose.__module__}.{loose.__qualname__} is not frozen" in text
    assert "write " in text


def test_the_base_of_states_is_no_durable_state() -> None:
    class AnyState(Durable[ego.State]):
        pass

    assert "ego.State is the base of states" in refused(AnyState)


@pytest.mark.parametrize("state", [Fraction, complex])
def test_a_durable_state_that_could_not_be_read_again_is_refused(state: Any) -> None:
    class Behavior(Durable[state]):
        pass

    class NotStored(Anything[Opened, state]):
        pass

    text = refused(Behavior)
    name = f"{state.__module__}.{state.__qualname__}"
    assert f"kind Behavior: states of {name} cannot be read again: msgspec does not know {name}" in text
    assert not engine(NotStored).started


def test_two_forms_of_one_generic_state_are_refused() -> None:
    class Wrapped(ego.State, Generic[S]):
        value: S

    class Behavior(Durable[Wrapped[int] | Wrapped[str]]):
        pass

    assert "declared in two forms" in refused(Behavior)


def test_a_state_and_an_event_of_two_kinds_under_one_stored_name_are_refused() -> None:
    @ego.stored("Opened")
    class Other(ego.State):
        pass

    class Behavior(Durable[Other]):
        pass

    assert "are both stored as 'Opened' version 1" in refused(DoorBehavior, Behavior)


def test_the_options_of_a_kind() -> None:
    kind = ego.Kind(DoorBehavior, passivate_after=60, keep_command_ids=0, keep_command_ids_for=366 * 86_400)
    assert (kind.passivate_after, kind.keep_command_ids, kind.keep_command_ids_for) == (60.0, 0, 31_622_400.0)
    usual = ego.Kind(DoorBehavior)
    assert (usual.passivate_after, usual.keep_command_ids, usual.keep_command_ids_for) == (None, 256, 86_400.0)


@pytest.mark.parametrize("option", ["passivate_after", "keep_command_ids_for"])
@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), float("inf"), 31_622_401, "60", True])
def test_the_seconds_of_a_kind_are_a_number_above_0_and_bounded(option: str, value: Any) -> None:
    with pytest.raises(ego.ConfigError, match=f"{option} must be ") as caught:
        ego.Kind(DoorBehavior, **{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("option", "value"),
    [("keep_command_ids", value) for value in (-1, 65_537, 1.0, True, None)] + [("keep_command_ids_for", None)],
)
def test_how_many_command_ids_are_kept_is_bounded(option: str, value: Any) -> None:
    with pytest.raises(ego.ConfigError, match=f"{option} must be ") as caught:
        ego.Kind(DoorBehavior, **{option: value})
    assert caught.value.option == option
