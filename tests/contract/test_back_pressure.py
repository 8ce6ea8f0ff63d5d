"""A disk that is slower than its callers: commands wait in mailboxes, and the queue of the store stays small."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from egotest.running import Run

import ego
from ego.testing import Clock

KIB = 1024
UNIT = 16 * KIB
QUEUE = 8 * UNIT
MOST = QUEUE // UNIT + 1
"""Units that may be on their way to the disk: those that fit, and the one after which the store calls itself full."""


class Add(ego.Command):
    data: bytes = b"x" * UNIT


class Added(ego.Event):
    data: bytes


class Total(ego.State):
    events: int = 0


class Pile(ego.EventSourcedBehavior[Add, Added, Total]):
    def initial_state(self) -> Total:
        return Total()

    def handle_command(self, command: Add, state: Total) -> Added:
        return Added(command.data)

    def handle_event(self, event: Added, state: Total) -> Total:
        return Total(state.events + 1)


def small(path: Path) -> ego.LogStore:
    return ego.LogStore(path / "piles.ego", max_unit_bytes=2 * UNIT, max_queue_bytes=QUEUE)


def test_what_is_on_its_way_to_the_disk_is_bounded_and_everybody_is_answered(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("piles", small(tmp_path), behaviors=[Pile]) as piles:
            answers = [piles.get(Pile, f"p-{n}").send(Add(), timeout=None) for n in range(500)]
            assert piles.stats()["pending"] <= MOST
            assert piles.stats()["queued"] > 0
            for answer in answers:
                assert await answer == (Total(1), 1)
                assert piles.stats()["pending"] <= MOST
            stats = piles.stats()
            assert (stats["ok"], stats["queued"], stats["running"], stats["waiting"]) == (500, 0, 0, 0)

    run(main())


def test_the_order_of_an_entitys_commands_is_kept(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("piles", small(tmp_path), behaviors=[Pile]) as piles:
            refs = [piles.get(Pile, f"p-{n}") for n in range(20)]
            answers = [ref.send(Add(), timeout=None) for _ in range(20) for ref in refs]
            revisions = [(await answer)[1] for answer in answers]
            assert revisions == [revision for revision in range(1, 21) for _ in refs]

    run(main())


def test_a_command_that_waits_for_room_until_it_is_late_never_runs(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with ego.Engine("piles", small(tmp_path), behaviors=[Pile], clock=clock) as piles:
            answers = [piles.get(Pile, f"p-{n}").send(Add(), timeout=1.0) for n in range(100)]
            queued = piles.stats()["queued"]
            assert queued > 0
            clock.advance(2.0)
            outcomes = await asyncio.gather(*answers, return_exceptions=True)
            late = [error.outcome for error in outcomes if isinstance(error, ego.CommandTimeoutError)]
            assert late.count("not_run") == queued
            states = [(await piles.get(Pile, f"p-{n}").state(timeout=None))[1] for n in range(100)]
            assert sum(states) == 100 - queued

    run(main())


def test_callers_that_never_stop_leave_room_for_others(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("piles", small(tmp_path), behaviors=[Pile]) as piles:
            done = asyncio.Event()

            async def busy(pile: ego.EntityRef[Add, Total]) -> None:
                while not done.is_set():
                    await pile.send(Add(), timeout=None)

            async with asyncio.TaskGroup() as group:
                for n in range(30):
                    group.create_task(busy(piles.get(Pile, f"busy-{n}")))
                await asyncio.sleep(0)
                for _ in range(10):
                    await piles.get(Pile, "patient").send(Add(), timeout=None)
                done.set()
            assert await piles.get(Pile, "patient").state() == (Total(10), 10)

    run(main())


def test_cancelling_drops_a_command_that_waits_for_room(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("piles", small(tmp_path), behaviors=[Pile]) as piles:
            first = [piles.get(Pile, f"p-{n}").send(Add(), timeout=None) for n in range(50)]
            dropped = asyncio.ensure_future(piles.get(Pile, "dropped").send(Add(), timeout=None))
            dropped.cancel()
            await asyncio.gather(*first)
            with pytest.raises(asyncio.CancelledError):
                await dropped
            assert await piles.get(Pile, "dropped").state() == (Total(), 0)

    run(main())


def test_a_stop_finishes_what_waits_for_room(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        piles = ego.Engine("piles", small(tmp_path), behaviors=[Pile])
        await piles.start()
        answers = [piles.get(Pile, f"p-{n % 30}").send(Add(), timeout=None) for n in range(300)]
        assert piles.stats()["queued"] > 0
        assert (await piles.stop()).finished
        assert sorted([(await answer)[1] for answer in answers]) == sorted([*range(1, 11)] * 30)

    run(main())


def test_reading_does_not_wait_for_room(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("piles", small(tmp_path), behaviors=[Pile]) as piles:
            quiet = piles.get(Pile, "quiet")
            await quiet.send(Add())
            answers = [piles.get(Pile, f"p-{n}").send(Add(), timeout=None) for n in range(50)]
            queued = piles.stats()["queued"]
            assert queued > 0
            answer = quiet.state()
            assert piles.stats()["queued"] == queued
            assert await answer == (Total(1), 1)
            await asyncio.gather(*answers)

    run(main())
