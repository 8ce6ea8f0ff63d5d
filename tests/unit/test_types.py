"""Which types a behavior declares."""

from types import new_class
from typing import Annotated, Any, Generic, NewType, Optional, TypeAlias, TypeVar, Union

import pytest
from typing_extensions import TypeAliasType
from typing_extensions import TypeVar as TypeVarWithDefault

import ego
from ego._types import type_arguments


class Open(ego.Command):
    pass


class Close(ego.Command):
    pass


class Opened(ego.Event):
    pass


class Closed(ego.Event):
    pass


class Door(ego.State):
    is_open: bool = False


C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")


class Wrapped(ego.Event, Generic[S]):
    value: S


Plain = Open | Close
Old: TypeAlias = Union[Opened, Closed]
Lazy = TypeAliasType("Lazy", "Opened | Closed")
Either = TypeAliasType("Either", Union[E, Closed], type_params=(E,))
Same = NewType("Same", Opened)


def shown(behavior: type[Any]) -> tuple[str, str, str]:
    found = type_arguments(behavior)
    return (
        "anything" if found.commands is None else " ".join(each.cls.__name__ for each in found.commands),
        " ".join(each.cls.__name__ for each in found.events),
        " ".join(each.cls.__name__ for each in found.states),
    )


def behavior(command: Any, event: Any, state: Any) -> type[Any]:
    """A behavior class with those type arguments, as a class statement would make it."""
    base: Any = ego.EventSourcedBehavior
    return base_class(base[command, event, state])


def base_class(base: Any) -> type[Any]:
    return new_class("Some", (base,), exec_body=lambda names: names.update(__module__=__name__))


@pytest.mark.parametrize(
    ("event", "names"),
    [
        (Opened, "Opened"),
        (Opened | Closed, "Opened Closed"),
        (Union[Opened, Closed], "Opened Closed"),
        (Old, "Opened Closed"),
        (Lazy, "Opened Closed"),
        (Either[Opened], "Opened Closed"),
        (Annotated[Opened, "said"], "Opened"),
        (Annotated[Opened | Closed, "said"], "Opened Closed"),
        (Union[Annotated[Closed, 1], Lazy], "Closed Opened"),
        ("Opened | Closed", "Opened Closed"),
        ("Lazy", "Opened Closed"),
        (Same, "Opened"),
        (Wrapped[int], "Wrapped"),
    ],
)
def test_an_event_type_is_followed_to_its_classes(event: Any, names: str) -> None:
    assert shown(behavior(Plain, event, Door)) == ("Open Close", names, "Door")


def test_a_state_may_be_optional() -> None:
    assert shown(behavior(Open, Opened, Optional[Door])) == ("Open", "Opened", "Door NoneType")


@pytest.mark.parametrize("command", [Any, object, Open | Any])
def test_any_command_is_said_with_any_or_object(command: Any) -> None:
    assert shown(behavior(command, Opened, Door))[0] == "anything"


def test_a_subclass_of_a_behavior_works_with_the_same_types() -> None:
    class Child(ego.EventSourcedBehavior[Open, Opened, Door]):
        pass

    class Grandchild(Child):
        pass

    assert shown(Grandchild) == ("Open", "Opened", "Door")


def test_a_generic_base_is_filled_in_by_its_subclasses() -> None:
    class Half(ego.EventSourcedBehavior[C, Union[E, Closed], Door], Generic[E, C]):
        pass

    class Quarter(Half[E, Open], Generic[E]):
        pass

    class Whole(Quarter[Annotated[Opened, "x"]]):
        pass

    assert shown(Whole) == ("Open", "Opened Closed", "Door")


def test_a_mixin_before_the_behavior_is_passed_over() -> None:
    class Mixin(Generic[S]):
        pass

    class Mixed(Mixin[int], ego.EventSourcedBehavior[Open, Opened, Door]):
        pass

    assert shown(Mixed) == ("Open", "Opened", "Door")


def test_the_default_of_a_type_variable_counts() -> None:
    D = TypeVarWithDefault("D", default=Door)

    class WithDefault(ego.EventSourcedBehavior[Open, Opened, D], Generic[D]):
        pass

    assert shown(WithDefault) == ("Open", "Opened", "Door")
    assert shown(base_class(WithDefault)) == ("Open", "Opened", "Door")


def durable(command: Any, state: Any) -> type[Any]:
    base: Any = ego.DurableStateBehavior
    return base_class(base[command, state])


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (Door, "Door"),
        (Optional[Door], "Door NoneType"),
        ("Door", "Door"),
        (Annotated[Door, "x"], "Door"),
        (Wrapped[int], "Wrapped"),
        (tuple[int, str], "tuple"),
    ],
)
def test_a_durable_state_is_followed_to_its_classes(state: Any, names: str) -> None:
    assert shown(durable(Plain, state)) == ("Open Close", "", names)


def test_a_generic_base_of_durable_states_is_filled_in_by_its_subclasses() -> None:
    class Kept(ego.DurableStateBehavior[C, Union[S, Door]], Generic[S, C]):
        pass

    class Whole(Kept[Annotated[Wrapped[int], "x"], Any]):
        pass

    assert shown(Whole) == ("anything", "", "Wrapped Door")
    assert shown(base_class(Whole)) == ("anything", "", "Wrapped Door")


def refused(behavior: type[Any]) -> str:
    with pytest.raises(ego.ConfigError) as caught:
        type_arguments(behavior)
    return str(caught.value)


def test_a_behavior_that_gives_no_types_is_told_what_to_write() -> None:
    text = refused(base_class(ego.EventSourcedBehavior))
    assert "Some does not say which types it works with" in text
    assert "class Some(ego.EventSourcedBehavior[MyCommand, MyEvent, MyState])" in text


def test_a_durable_state_without_types_is_told_what_to_write() -> None:
    text = refused(base_class(ego.DurableStateBehavior))
    assert "class Some(ego.DurableStateBehavior[MyCommand, MyState])" in text
    assert "leaves its state type open (S)" in refused(durable(Open, S))
    assert "declares as state something that is not a class" in refused(durable(Open, Any))


def test_an_open_type_variable_is_named() -> None:
    text = refused(behavior(Open, E, Door))
    assert "leaves its event type open (E)" in text
    assert "EventSourcedBehavior[MyCommand" in text


@pytest.mark.parametrize("event", [Any, object, Opened | Any])
def test_any_event_is_refused(event: Any) -> None:
    assert "declares as event something that is not a class" in refused(behavior(Open, event, Door))


def test_a_name_that_cannot_be_looked_up_is_refused() -> None:
    assert "'Nowhere' is not the name of a type at the top of its module" in refused(behavior(Open, "Nowhere", Door))


def test_an_alias_of_an_unknown_name_is_refused() -> None:
    alias: Any = TypeAliasType
    assert "Nowhere" in refused(behavior(Open, alias("Broken", "Nowhere"), Door))
