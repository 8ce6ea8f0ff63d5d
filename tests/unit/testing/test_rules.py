"""What every behavior has to keep, and how the kit tells that one does not: a `BehaviorError` whatever is expected."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
import pytest

import ego
from ego.testing import BehaviorError, given


class Do(ego.Command):
    """Gives what the function gives for the behavior and its state."""

    action: Callable[["Shelf", "Books"], Any]


class Put(ego.Event):
    title: Any


class Odd(ego.Event):
    """Its fold is the function of the class below."""


class Books(ego.State):
    titles: list[Any] = msgspec.field(default_factory=list[Any])
    extra: Any = None


class Shelf(ego.EventSourcedBehavior[Do, Put | Odd, Books]):
    odd: Callable[["Shelf", Books], Books]

    def initial_state(self) -> Books:
        return Books()

    def handle_command(self, command: Do, state: Books) -> Any:
        return command.action(self, state)

    def handle_event(self, event: Put | Odd, state: Books) -> Books:
        match event:
            case Put(title):
                return Books([*state.titles, title], state.extra)
            case Odd():
                return self.odd(self, state)


def shelf_with(odd: Callable[[Shelf, Books], Books]) -> type[Shelf]:
    class Special(Shelf):
        kind = "shelf"

    Special.odd = staticmethod(odd)
    return Special


def broken(action: Callable[[Shelf, Books], Any], kind: type[Shelf] = Shelf) -> str:
    """What the kit says about a command that does this."""
    with pytest.raises(BehaviorError) as caught:
        given(kind, Put("Emma")).when(Do(action)).rejects(Exception)
    return str(caught.value)


def put_odd(_: Shelf, __: Books) -> Odd:
    return Odd()


def test_a_broken_rule_is_a_failure_and_no_refusal() -> None:
    assert issubclass(BehaviorError, AssertionError)


def test_a_rule_that_is_broken_on_the_way_through_the_history_is_no_mistake_of_the_test() -> None:
    numbers = count()
    kind = shelf_with(lambda _, state: Books(state.titles, next(numbers)))
    with pytest.raises(BehaviorError, match="handle_event is not pure"):
        given(kind, Put("Emma"), Odd())


class Unknown:
    def __repr__(self) -> str:
        return "<unknown>"


def test_an_event_that_cannot_be_stored() -> None:
    assert broken(lambda _, __: Put({"a": (1, Unknown())})) == (
        "the event Put(title={'a': (1, <unknown>)}) cannot be stored: Put.title['a'][1]: "
        "Encoding objects of type test_rules.Unknown is unsupported"
    ).replace("test_rules.Unknown", "Unknown")


def test_an_event_that_is_another_after_reading() -> None:
    assert broken(lambda _, __: [Put("x"), Put({"a": (1, 2)})]) == (
        "the event Put(title={'a': (1, 2)}) is not the same when it is read again: "
        "Put.title['a']: written (1, 2), read [1, 2]"
    )


@dataclass(frozen=True)
class Page:
    number: int


class Turned(ego.Event):
    page: Page


class Turn(ego.Command):
    page: Any


class Reader(ego.EventSourcedBehavior[Turn, Turned, Page]):
    def initial_state(self) -> Page:
        return Page(0)

    def handle_command(self, command: Turn, state: Page) -> Turned:
        return Turned(command.page)

    def handle_event(self, event: Turned, state: Page) -> Page:
        return event.page


def test_an_event_that_cannot_be_read() -> None:
    given(Reader).when(Turn(Page(7))).then(Turned(Page(7)), state=Page(7))
    with pytest.raises(BehaviorError) as caught:
        given(Reader).when(Turn(Page("seven")))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == (
        "the event Turned(page=Page(number='seven')) can be written and not be read: Turned: "
        "Expected `int`, got `str` - at `$.page.number`"
    )


def test_a_state_that_is_another_after_reading() -> None:
    kind = shelf_with(lambda _, state: Books(state.titles, extra=("a", "b")))
    assert broken(put_odd, kind) == (
        "the state Books(titles=['Emma'], extra=('a', 'b')) is not the same when it is read again: "
        "Books.extra: written ('a', 'b'), read ['a', 'b']"
    )


def test_an_initial_state_that_cannot_be_stored() -> None:
    class Bad(Shelf):
        def initial_state(self) -> Books:
            return Books(extra=Unknown())

    with pytest.raises(BehaviorError, match=r"the state .* cannot be stored: Books\.extra: "):
        given(Bad)


def test_an_initial_state_that_differs_from_call_to_call() -> None:
    numbers = count()

    class Bad(Shelf):
        def initial_state(self) -> Books:
            return Books(extra=next(numbers))

    with pytest.raises(BehaviorError, match=r"initial_state is not pure.*: Books\.extra: first 0, then 1"):
        given(Bad)


def test_a_command_that_changes_its_state_in_place() -> None:
    def change(_: Shelf, state: Books) -> Put:
        state.titles.append("Persuasion")
        return Put("Persuasion")

    told = "handle_command changed the state in place: Books.titles: was ['Emma'], is now ['Emma', 'Persuasion']"
    assert broken(change) == told

    def change_and_refuse(shelf: Shelf, state: Books) -> None:
        change(shelf, state)
        raise ValueError

    assert broken(change_and_refuse) == told

    async def change_later(shelf: Shelf, state: Books) -> Put:
        await asyncio.sleep(0)
        return change(shelf, state)

    assert broken(change_later) == told


def test_a_fold_that_changes_its_state_in_place() -> None:
    def change(_: Shelf, state: Books) -> Books:
        state.titles[0] = "Sanditon"
        return state

    assert broken(put_odd, shelf_with(change)) == (
        "handle_event changed the state in place: Books.titles[0]: was 'Emma', is now 'Sanditon'"
    )


def test_a_fold_that_changes_its_event_in_place() -> None:
    class Sorting(Shelf):
        def handle_event(self, event: Put | Odd, state: Books) -> Books:
            assert isinstance(event, Put)
            if event.title != "Emma":
                event.title.sort()
            return super().handle_event(event, state)

    assert broken(lambda _, __: Put([2, 1]), Sorting) == (
        "handle_event changed the event in place: Put.title[0]: was 2, is now 1; Put.title[1]: was 1, is now 2"
    )


def test_a_fold_that_is_not_pure() -> None:
    numbers = count(7)
    assert broken(put_odd, shelf_with(lambda _, state: Books(state.titles, next(numbers)))) == (
        "shelf/test: handle_event is not pure, called twice with the same it differs: Books.extra: first 7, then 8"
    )


def test_a_fold_that_works_once() -> None:
    tickets = iter([1])

    def once(_: Shelf, state: Books) -> Books:
        return Books(extra=next(tickets, None) or state.titles[9])

    assert broken(put_odd, shelf_with(once)).startswith(
        "shelf/test: handle_event is not pure, it took Odd() once and then raised IndexError("
    )


def test_a_fold_that_depends_on_what_the_object_remembers() -> None:
    class Remembering(Shelf):
        def __init__(self, entity_id: str) -> None:
            super().__init__(entity_id)
            self.seen = 0

        def handle_event(self, event: Put | Odd, state: Books) -> Books:
            self.seen += 1
            return Books(extra=self.seen)

    assert broken(put_odd, Remembering).endswith("Books.extra: first 2, then 1")


class NoRoomError(ego.Rejection):
    books: Any


def test_a_rejection_that_cannot_be_remembered() -> None:
    def refuse_with(books: Any) -> Callable[[Shelf, Books], None]:
        def refuse(_: Shelf, __: Books) -> None:
            raise NoRoomError(books)

        return refuse

    given(Shelf).when(Do(refuse_with([1, 2]))).rejects(NoRoomError, books=[1, 2])
    assert broken(refuse_with((1, 2))) == (
        "the rejection NoRoomError(books=(1, 2)) is not the same when it is read again: "
        "NoRoomError.books: written (1, 2), read [1, 2]"
    )
    assert broken(refuse_with(Unknown())).startswith("the rejection NoRoomError(books=<unknown>) cannot be stored: ")


def test_a_handler_is_called_once() -> None:
    calls: list[Books] = []

    def note(_: Shelf, state: Books) -> Put:
        calls.append(state)
        return Put(len(calls))

    given(Shelf).when(Do(note)).then(Put(1))
    assert len(calls) == 1


def test_a_set_that_is_written_in_another_order_is_no_change() -> None:
    class Tags(ego.State):
        tags: frozenset[str] = frozenset()

    class Tag(ego.Event):
        name: str

    class Tagged(ego.EventSourcedBehavior[Tag, Tag, Tags]):
        def initial_state(self) -> Tags:
            return Tags()

        def handle_command(self, command: Tag, state: Tags) -> Tag:
            return command

        def handle_event(self, event: Tag, state: Tags) -> Tags:
            return Tags(state.tags | {event.name})

    names = [f"tag-{number}" for number in range(100)]
    given(Tagged, *map(Tag, names[:-1])).when(Tag(names[-1])).then(Tag(names[-1]), state=Tags(frozenset(names)))
