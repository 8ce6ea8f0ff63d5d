"""Entities that are not in memory: they come back while the loop goes on, and their commands wait as queued ones do."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from egotest.running import Run, runner

import ego

Store = ego.LogStore | ego.MemoryStore

LONG = 120_000
"""Events: far more than are folded within a round of the loop."""


class Add(ego.Command):
    count: int = 1


class Added(ego.Event):
    pass


class Total(ego.State):
    events: int = 0


class Pile(ego.EventSourcedBehavior[Add, Added, Total]):
    kind = "pile"
    folded: ClassVar[int] = 0
    broken_at: ClassVar[int | None] = None
    seconds: ClassVar[float] = 0.0
    """How long an event takes."""

    def initial_state(self) -> Total:
        return Total()

    def handle_command(self, command: Add, state: Total) -> list[Added]:
        return [Added()] * command.count

    def handle_event(self, event: Added, state: Total) -> Total:
        if state.events == Pile.broken_at:
            raise ArithmeticError("broken")
        Pile.folded += 1
        end = time.perf_counter() + Pile.seconds
        while Pile.seconds and time.perf_counter() < end:
            pass
        return Total(state.events + 1)


class Put(ego.Command):
    text: str


class Text(ego.State):
    text: str = ""


class Page(ego.DurableStateBehavior[Put, Text]):
    kind = "page"

    def initial_state(self) -> Text:
        return Text()

    def handle_command(self, command: Put, version: int, state: Text) -> tuple[Text, int]:
        return Text(command.text), version + 1


def engine(store: Store, **options: Any) -> ego.Engine:
    return ego.Engine("piles", store, behaviors=[Pile, Page], **options)


async def fill(store: Store, events: int = LONG, entity: str = "long") -> None:
    """Stores so many events of one entity, in commands of 100 and less."""
    async with engine(store) as piles:
        pile = piles.get(Pile, entity)
        answers = [pile.send(Add(100), timeout=None) for _ in range(events // 100)]
        for answer in answers:
            await answer
        if events % 100:
            await pile.send(Add(events % 100))


async def fill_singly(store: Store, commands: int, first_id: str | None = None) -> None:
    """Stores so many commands of one event each; the first one under an id."""
    async with engine(store, mailbox_capacity=commands) as piles:
        pile = piles.get(Pile, "long")
        await pile.send(Add(), command_id=first_id)
        for answer in [pile.send(Add(), timeout=None) for _ in range(commands - 1)]:
            await answer


def test_the_loop_goes_on_while_a_long_history_is_folded(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill(store)
        async with engine(store) as piles:
            answer = asyncio.ensure_future(piles.get(Pile, "long").state(timeout=None))
            other, sent, most, before = piles.get(Pile, "other"), 0, 0, Pile.folded
            while not answer.done():
                await asyncio.sleep(0)
                most, before = max(most, Pile.folded - before), Pile.folded
                sent += 1
                assert await other.send(Add()) == (Total(sent), sent)
                before = max(before, Pile.folded - 1)
            assert await answer == (Total(LONG), LONG)
            assert most < LONG // 4
            assert sent > 4

    run(main())


def test_a_fold_that_takes_long_leaves_the_loop_to_others_as_well(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await fill(store, 600)
        async with engine(store) as piles:
            monkeypatch.setattr(Pile, "seconds", 1e-4)
            answer = asyncio.ensure_future(piles.get(Pile, "long").state(timeout=None))
            rounds = 0
            while not answer.done():
                await asyncio.sleep(0)
                rounds += 1
            assert await answer == (Total(600), 600)
            assert rounds > 10

    run(main())


def test_commands_of_an_entity_that_is_loaded_run_in_the_order_in_which_they_came(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill(store)
        async with engine(store) as piles:
            pile = piles.get(Pile, "long")
            answers = [pile.send(Add(), timeout=None) for _ in range(5)]
            assert piles.stats()["queued"] == 5
            revisions = [(await answer)[1] for answer in answers]
            assert revisions == [LONG + number for number in range(1, 6)]
            assert (piles.stats()["queued"], piles.stats()["running"]) == (0, 0)

    run(main())


def test_a_command_that_is_late_before_its_entity_is_there_never_runs(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill(store)
        async with engine(store) as piles:
            pile = piles.get(Pile, "long")
            with pytest.raises(ego.CommandTimeoutError) as caught:
                await pile.send(Add(), timeout=1e-6)
            assert caught.value.outcome == "not_run"
            assert await pile.state(timeout=None) == (Total(LONG), LONG)

    run(main())


def test_cancelling_drops_a_command_whose_entity_is_not_there_yet(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill(store)
        async with engine(store) as piles:
            pile = piles.get(Pile, "long")
            dropped, kept = asyncio.ensure_future(pile.send(Add())), pile.send(Add(), timeout=None)
            await asyncio.sleep(0)
            dropped.cancel()
            assert await kept == (Total(LONG + 1), LONG + 1)
            assert dropped.cancelled()

    run(main())


def test_a_stop_finishes_what_waits_for_its_entity(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill(store)
        piles = engine(store)
        await piles.start()
        answer = piles.get(Pile, "long").send(Add(), timeout=None)
        assert (await piles.stop()).finished
        assert await answer == (Total(LONG + 1), LONG + 1)

    run(main())


def test_a_stop_that_cannot_wait_leaves_nothing_behind(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill(store)
        piles = engine(store)
        await piles.start()
        answer = piles.get(Pile, "long").send(Add(), timeout=None)
        report = await piles.stop(timeout=1e-6)
        assert (report.finished, report.queued, report.running) == (False, 1, 0)
        with pytest.raises(ego.CommandTimeoutError) as caught:
            await answer
        assert caught.value.outcome == "not_run"
        async with piles:
            assert await piles.get(Pile, "long").state(timeout=None) == (Total(LONG), LONG)

    run(main())


def test_an_event_that_does_not_fold_fails_one_command_and_the_next_one_reads_again(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await fill(store)
        monkeypatch.setattr(Pile, "broken_at", LONG - 5)
        async with engine(store) as piles:
            pile = piles.get(Pile, "long")
            first, second = pile.send(Add(), timeout=None), pile.send(Add(), timeout=None)
            for answer in (first, second):
                with pytest.raises(ego.ReplayError, match=f"stored event {LONG - 4}"):
                    await answer
            monkeypatch.setattr(Pile, "broken_at", None)
            assert await pile.send(Add(), timeout=None) == (Total(LONG + 1), LONG + 1)

    run(main())


def test_a_caller_on_another_loop_waits_for_its_entity_as_well(store: Store) -> None:
    async def main() -> None:
        await fill(store)
        async with engine(store) as piles:

            async def send() -> tuple[Total, int]:
                return await piles.get(Pile, "long").send(Add(), timeout=None)

            there = asyncio.to_thread(runner("asyncio"), send())
            assert await there == (Total(LONG + 1), LONG + 1)

    runner("asyncio")(main())


def test_a_repeated_command_is_answered_from_far_back(store: Store, run: Run) -> None:
    async def main() -> None:
        await fill_singly(store, 5_000, first_id="first")
        async with engine(store) as piles:
            pile = piles.get(Pile, "long")
            assert await pile.state(timeout=None) == (Total(5_000), 5_000)
            again = [pile.send(Add(), command_id="first", timeout=None) for _ in range(3)]
            after = pile.send(Add(), timeout=None)
            assert piles.stats()["queued"] == 4
            assert [await answer for answer in again] == [(Total(1), 1)] * 3
            assert await after == (Total(5_001), 5_001)
            assert await pile.send(Add(), command_id="new", timeout=None) == (Total(5_002), 5_002)

    run(main())


def test_what_is_not_open_yet_is_read_by_another_thread_and_the_rest_at_once(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = ego.LogStore(tmp_path / "piles.ego")
        await fill(store, 3, "a")
        await fill(store, 4, "b")
        async with engine(store) as piles:
            await piles.get(Page, "p").send(Put("once"))
        async with engine(store) as piles:
            first = piles.get(Pile, "a").send(Add())
            assert piles.stats()["queued"] == 1
            assert await first == (Total(4), 4)
            second = piles.get(Pile, "b").state()
            assert piles.stats()["queued"] == 0
            assert await second == (Total(4), 4)
            assert await piles.get(Page, "p").send(Put("twice")) == (Text("twice"), 2)
        async with engine(store) as piles:
            page = piles.get(Page, "p").send(Put("thrice"))
            assert piles.stats()["queued"] == 1
            assert await page == (Text("thrice"), 3)

    run(main())


def test_an_entity_of_the_other_sort_is_refused_when_it_is_read_by_another_thread(tmp_path: Path, run: Run) -> None:
    class Sheet(ego.EventSourcedBehavior[Add, Added, Total]):
        kind = "page"

        def initial_state(self) -> Total:
            return Total()

        def handle_command(self, command: Add, state: Total) -> Added:
            return Added()

        def handle_event(self, event: Added, state: Total) -> Total:
            return Total(state.events + 1)

    async def main() -> None:
        store = ego.LogStore(tmp_path / "piles.ego")
        async with engine(store) as piles:
            await piles.get(Page, "p").send(Put("once"))
        async with ego.Engine("sheets", store, behaviors=[Sheet]) as sheets:
            with pytest.raises(ego.ReplayError, match="durable states"):
                await sheets.get(Sheet, "p").send(Add())

    run(main())


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def fork_while_loading(path: str) -> None:
    store = ego.LogStore(path)
    await fill(store)
    async with engine(store) as piles:
        answer = piles.get(Pile, "long").send(Add(), timeout=None)
        child = os.fork()
        if child == 0:
            del answer, piles, store
            gc.collect()
            os._exit(7)
        assert exit_code(child) == 7
        assert await answer == (Total(LONG + 1), LONG + 1)


def test_a_fork_while_an_entity_is_read_hangs_nobody(tmp_path: Path) -> None:
    program = (
        f"import asyncio, test_cold_loads as t; asyncio.run(t.fork_while_loading({str(tmp_path / 'piles.ego')!r}))"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-W", "ignore", "-c", program]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": paths})
