"""`ego.context()` in handlers under test: whose they are, what the command carries, and when it is."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime

import pytest

import ego
from ego.testing import ArrangementError, BehaviorError, Clock, given


class Note(ego.Command):
    later: bool = False


class Noted(ego.Event):
    where: str
    command_id: str | None
    metadata: dict[str, str]
    at: datetime


class Notes(ego.State):
    last: str = ""


class Notebook(ego.EventSourcedBehavior[Note, Noted, Notes]):
    kind = "notebook"

    def initial_state(self) -> Notes:
        return Notes()

    def handle_command(self, command: Note, state: Notes) -> Noted | Awaitable[Noted]:
        return self._later() if command.later else self._noted()

    def handle_event(self, event: Noted, state: Notes) -> Notes:
        return Notes(event.where)

    async def _later(self) -> Noted:
        before = self._noted()
        await asyncio.sleep(0)
        assert self._noted() == before
        return before

    def _noted(self) -> Noted:
        context = ego.context()
        where = f"{context.kind}/{context.entity_id} at {context.revision}"
        return Noted(where, context.command_id, context.metadata, context.now())


@pytest.mark.parametrize("later", [False, True])
def test_a_handler_is_told_of_its_entity_and_its_command(later: bool) -> None:
    clock = Clock()
    clock.advance(60)
    carried = {"user": "ada"}
    noted = Noted("notebook/n-1 at 0", "one", carried, datetime(2030, 1, 1, 0, 1, tzinfo=UTC))
    first = given(Notebook, id="n-1", clock=clock).when(Note(later), command_id="one", metadata=carried).then(noted)
    clock.advance(60)
    second = Noted("notebook/n-1 at 1", None, {}, datetime(2030, 1, 1, 0, 2, tzinfo=UTC))
    first.when(Note(later)).then(second, state=Notes("notebook/n-1 at 1"), revision=2)


def test_a_coroutine_that_is_awaited_by_the_test_is_told_the_same() -> None:
    async def main() -> None:
        outcome = await given(Notebook, clock=Clock()).when(Note(later=True), command_id="one")
        outcome.then(Noted("notebook/test at 0", "one", {}, Clock().now()))
        with pytest.raises(LookupError):
            ego.context()

    asyncio.run(main())


def test_the_context_ends_with_the_handler() -> None:
    given(Notebook).when(Note())
    with pytest.raises(LookupError):
        ego.context()


def test_a_fold_has_no_context_when_it_is_read_again() -> None:
    class Impure(Notebook):
        def handle_event(self, event: Noted, state: Notes) -> Notes:
            return Notes(str(ego.context().revision))

    with pytest.raises(BehaviorError, match=r"handle_event is not pure.*LookupError"):
        given(Impure).when(Note())


def test_what_no_command_can_carry_is_an_arrangement_mistake() -> None:
    class Unspeakable(Note):
        what: object = None

    with pytest.raises(ArrangementError, match="command_id is a text"):
        given(Notebook).when(Note(), command_id="")
    with pytest.raises(ArrangementError, match="more than the"):
        given(Notebook).when(Note(), metadata={"much": "x" * 20_000})
    with pytest.raises(ArrangementError, match="msgspec can encode"):
        given(Notebook).when(Unspeakable(what=object()), command_id="one")
