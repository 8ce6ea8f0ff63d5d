"""A store that has no room: whole commands are refused, memory goes back, and work goes on when there is room again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from egotest.full import files_up_to

import ego


class Add(ego.Command):
    data: bytes


class Added(ego.Event):
    data: bytes


class Total(ego.State):
    events: int = 0
    size: int = 0


class Pile(ego.EventSourcedBehavior[Add, Added, Total]):
    def initial_state(self) -> Total:
        return Total()

    def handle_command(self, command: Add, state: Total) -> list[Added]:
        return [Added(command.data), Added(command.data)]

    def handle_event(self, event: Added, state: Total) -> Total:
        return Total(state.events + 1, state.size + len(event.data))


async def refused_at(pile: ego.EntityRef[Add, Total], data: bytes) -> tuple[Total, int]:
    """Sends until there is no room; returns the last acknowledged answer."""
    answer = await pile.state()
    while True:
        try:
            answer = await pile.send(Add(data))
        except ego.StoreFullError:
            return answer


def test_a_refused_command_leaves_the_entity_as_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        async with ego.Engine("full", ego.LogStore(tmp_path / "s"), behaviors=[Pile]) as engine:
            pile = engine.get(Pile, "a")
            with files_up_to(1 << 20):
                state, revision = await refused_at(pile, b"x" * 50_000)
                assert revision == state.events > 0
                assert await pile.state() == (state, revision)
                # What still fits is taken, and continues where the acknowledged commands ended.
                state, revision = await pile.send(Add(b"small"))
                assert state.events == revision
            after, at = await pile.send(Add(b"y" * 50_000))
            assert (after.events, at) == (state.events + 2, revision + 2)
            await engine.stop()
            await engine.start()
            assert await pile.state() == (after, at)

    asyncio.run(story())


def test_commands_sent_ahead_of_a_refused_one_fail_with_it_and_nothing_is_half_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with ego.Engine("full", ego.LogStore(tmp_path / "s"), behaviors=[Pile]) as engine:
            pile = engine.get(Pile, "a")
            with files_up_to(1 << 20):
                state, revision = await refused_at(pile, b"x" * 50_000)
                ahead = [pile.send(Add(b"z" * 60_000)) for _ in range(5)]
                answers = await asyncio.gather(*ahead, return_exceptions=True)
                assert all(isinstance(answer, ego.StoreFullError) for answer in answers), answers
                assert await pile.state() == (state, revision)
            answers = await asyncio.gather(*(pile.send(Add(b"z")) for _ in range(5)))
            assert [at - revision for _, at in answers] == [2, 4, 6, 8, 10]
            await engine.stop()
            await engine.start()
            assert await pile.state() == answers[-1]

    asyncio.run(story())


def test_who_sends_again_at_once_goes_on_whatever_else_is_refused(tmp_path: Path) -> None:
    async def again(pile: ego.EntityRef[Add, Total]) -> int:
        with pytest.raises(ego.StoreFullError):
            await pile.send(Add(b"x" * 60_000))
        return (await pile.send(Add(b"small")))[1]

    async def story() -> None:
        async with ego.Engine("full", ego.LogStore(tmp_path / "s"), behaviors=[Pile]) as engine:
            pile = engine.get(Pile, "a")
            with files_up_to(1 << 20):
                _, revision = await refused_at(pile, b"x" * 50_000)
                for _ in range(20):
                    answers = await asyncio.gather(*(again(pile) for _ in range(5)))
                    assert answers == [revision + 2 * n for n in range(1, 6)]
                    revision = answers[-1]

    asyncio.run(story())


def test_the_error_says_where(tmp_path: Path) -> None:
    async def story() -> None:
        async with ego.Engine("full", ego.LogStore(tmp_path / "s"), behaviors=[Pile]) as engine:
            with files_up_to(1 << 20), pytest.raises(ego.StoreFullError) as raised:
                await engine.get(Pile, "a").send(Add(b"x" * 2_000_000))
            assert raised.value.path == str(tmp_path / "s")
            assert isinstance(raised.value, OSError)

    asyncio.run(story())
