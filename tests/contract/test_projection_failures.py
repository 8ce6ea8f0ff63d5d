"""What becomes of an event whose handler raises: policies, dead letters, and rows that are written once."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Deposit
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account])


class Picky:
    """Refuses some positions, each so many times."""

    def __init__(self, refused: dict[int, int]) -> None:
        self.refused = refused
        self.calls = list[int]()
        self.taken = list[int]()

    def handle(self, envelope: ego.EventEnvelope[Any]) -> None:
        position = envelope.position
        self.calls.append(position)
        if self.refused.get(position, 0) > 0:
            self.refused[position] -= 1
            raise ValueError(f"not {position}")
        self.taken.append(position)


class PickyLater(Picky):
    """The same as a coroutine function."""

    async def handle(self, envelope: ego.EventEnvelope[Any]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().handle(envelope)


async def write(bank: ego.Engine, count: int, *, accounts: int = 1) -> None:
    for number in range(count):
        await bank.get(Account, f"a-{number % accounts}").send(Deposit(1))


async def stopped(bank: ego.Engine, name: str) -> ego.ProjectionStatus:
    """Its status once it does not run any more."""
    with pytest.raises(ego.ProjectionError, match="failed"):
        await bank.projection(name).wait_for(bank.get(Account, "a-0"), 1)
    return bank.projection(name).status()


@pytest.mark.parametrize("handler", [Picky, PickyLater])
def test_a_projection_that_fails_stops_before_the_event_and_goes_on_from_it(
    store: Store, run: Run, handler: type[Picky]
) -> None:
    async def main() -> None:
        picky = handler({3: 1})
        async with engine(store) as bank:
            await write(bank, 5)
            await bank.add_projection("picky", picky)
            status = await stopped(bank, "picky")
            assert (status.state, status.position, str(status.last_error)) == ("failed", 2, "not 3")
            assert not await bank.is_projection_running("picky")
            assert bank.stats()["projections_failed"] == 1
            await bank.remove_projection("picky")
        async with engine(store) as bank:
            await bank.add_projection("picky", picky)
            await bank.projection("picky").wait_for(bank.get(Account, "a-0"), 5)
        assert picky.calls == [1, 2, 3, 3, 4, 5]

    run(main())


@pytest.mark.parametrize("handler", [Picky, PickyLater])
def test_attempts_are_counted_with_the_first(store: Store, run: Run, handler: type[Picky]) -> None:
    async def main() -> None:
        picky = handler({2: 2, 4: 3})
        async with engine(store) as bank:
            await write(bank, 5)
            await bank.add_projection("picky", picky, policy=ego.RetryAndFail(attempts=3, delay=0.001))
            status = await stopped(bank, "picky")
            assert (status.state, status.position) == ("failed", 3)
        assert picky.calls == [1, 2, 2, 2, 3, 4, 4, 4]

    run(main())


@pytest.mark.parametrize("policy", [ego.Skip(), ego.RetryAndSkip(attempts=2, delay=0.001)])
def test_a_skipped_event_is_a_dead_letter_until_it_is_retried_or_discarded(
    store: Store, run: Run, policy: ego.Skip | ego.RetryAndSkip
) -> None:
    async def main() -> None:
        picky = Picky({2: policy.attempts + 1, 4: policy.attempts})
        async with engine(store) as bank:
            await write(bank, 5)
            await bank.add_projection("picky", picky, policy=policy)
            await bank.projection("picky").wait_for(bank.get(Account, "a-0"), 5)
            assert picky.taken == [1, 3, 5]
        async with engine(store) as bank:
            await bank.add_projection("picky", picky, policy=policy)
            projection = bank.projection("picky")
            second, fourth = projection.dead_letters()
            assert (second.position, second.entity, second.revision) == (2, (Account.kind, "a-0"), 2)
            assert (second.error, second.attempts) == ("ValueError: not 2", policy.attempts)
            assert (await projection.envelope(fourth)).position == 4
            assert await projection.retry() == 0
            assert picky.taken == [1, 3, 5]
            [again, _] = projection.dead_letters()
            assert again.attempts == policy.attempts + 1
            await projection.discard(again)
            assert await projection.retry(fourth) == 1
            assert (picky.taken, projection.dead_letters()) == ([1, 3, 5, 4], [])
            with pytest.raises(ego.ProjectionError, match="no dead letter"):
                await projection.retry(second)
        async with engine(store) as bank:
            await bank.add_projection("picky", picky, policy=policy)
            assert bank.projection("picky").dead_letters() == []

    run(main())


def test_later_events_of_an_entity_wait_behind_its_dead_letter(store: Store, run: Run) -> None:
    async def main() -> None:
        picky = Picky({1: 1})
        policy = ego.Skip(park_entity=True)
        async with engine(store) as bank:
            await write(bank, 3, accounts=2)
            await bank.add_projection("picky", picky, policy=policy)
            await bank.projection("picky").wait_for(bank.get(Account, "a-0"), 2)
        async with engine(store) as bank:
            await bank.add_projection("picky", picky, policy=policy)
            await write(bank, 2, accounts=2)
            projection = bank.projection("picky")
            await projection.wait_for(bank.get(Account, "a-1"), 2)
            assert picky.taken == [2, 5]
            assert [(letter.position, letter.attempts) for letter in projection.dead_letters()] == [
                (1, 1),
                (3, 0),
                (4, 0),
            ]
            assert await projection.retry() == 3
            assert picky.taken == [2, 5, 1, 3, 4]

    run(main())


def test_a_letter_that_two_retry_at_once_is_taken_once(store: Store, run: Run) -> None:
    async def main() -> None:
        picky = Picky({1: 1, 2: 1})
        async with engine(store) as bank:
            await write(bank, 2, accounts=2)
            await bank.add_projection("picky", picky, policy=ego.Skip())
            projection = bank.projection("picky")
            await projection.wait_for(bank.get(Account, "a-1"), 1)
            assert list(await asyncio.gather(projection.retry(), projection.retry())) == [2, 0]
            assert picky.taken == [1, 2]

    run(main())


def test_a_letter_that_waits_behind_another_is_not_retried_before_it(store: Store, run: Run) -> None:
    async def main() -> None:
        picky = Picky({1: 1})
        async with engine(store) as bank:
            await write(bank, 2)
            await bank.add_projection("picky", picky, policy=ego.Skip(park_entity=True))
            projection = bank.projection("picky")
            await projection.wait_for(bank.get(Account, "a-0"), 2)
            first, second = projection.dead_letters()
            assert await projection.retry(second) == 0
            assert (picky.taken, projection.dead_letters()) == ([], [first, second])
            await projection.discard(first)
            assert await projection.retry(second) == 1
            assert picky.taken == [2]

    run(main())


@pytest.mark.parametrize(("policy", "reached"), [(ego.Fail(), [1, 2]), (ego.Skip(), [1, 2, 4, 5])])
def test_of_a_batch_that_fails_only_the_event_at_fault_is_missing(
    store: Store, run: Run, policy: ego.Fail | ego.Skip, reached: list[int]
) -> None:
    taken = set[int]()

    class Batches:
        def handle_batch(self, envelopes: list[ego.EventEnvelope[Any]]) -> None:
            positions = [envelope.position for envelope in envelopes]
            if 3 in positions:
                raise ValueError("not 3")
            taken.update(positions)

    async def main() -> None:
        async with engine(store) as bank:
            await write(bank, 5)
            await bank.add_projection("batches", Batches(), policy=policy)
            projection = bank.projection("batches")
            if policy.skips:
                await projection.wait_for(bank.get(Account, "a-0"), 5)
            else:
                assert (await stopped(bank, "batches")).position == 2
            assert [letter.position for letter in projection.dead_letters()] == ([3] if policy.skips else [])
        assert sorted(taken) == reached

    run(main())


def test_a_handler_that_has_sqlite_roll_back_takes_nothing_of_others_along(
    store: Store, run: Run, tmp_path: Path
) -> None:
    def handle(envelope: ego.EventEnvelope[Any], tx: ego.ReadModelTransaction) -> None:
        position = 1 if envelope.position == 3 else envelope.position
        tx.execute("INSERT OR ROLLBACK INTO seen VALUES (?)", (position,))

    async def main() -> None:
        model = ego.SQLiteReadModel(
            tmp_path / "seen.db", create=lambda tx: tx.execute("CREATE TABLE seen (position INTEGER UNIQUE)")
        )
        async with engine(store) as bank:
            await write(bank, 5)
            await bank.add_projection("seen", handle, policy=ego.Skip(), into=model)
            projection = bank.projection("seen")
            await projection.wait_for(bank.get(Account, "a-0"), 5)
            assert [letter.position for letter in projection.dead_letters()] == [3]

    run(main())
    reader = sqlite3.connect(tmp_path / "seen.db")
    assert reader.execute("SELECT position FROM seen ORDER BY rowid").fetchall() == [(1,), (2,), (4,), (5,)]
    reader.close()


@pytest.mark.parametrize("policy", [ego.Skip(), ego.RetryAndSkip(attempts=2, delay=0.001)])
def test_what_a_stopping_engine_refuses_a_handler_is_not_its_failure(
    store: Store, run: Run, policy: ego.Skip | ego.RetryAndSkip
) -> None:
    async def main() -> None:
        entered, released, taken = asyncio.Event(), asyncio.Event(), list[int]()
        failures = [policy.attempts - 1]

        async def forward(envelope: ego.EventEnvelope[Any]) -> None:
            if failures[0] > 0:
                failures[0] -= 1
                raise ValueError("not yet")
            entered.set()
            await released.wait()
            if envelope.kind == Account.kind and envelope.entity_id == "a-0":
                await bank.get(Account, "copy").send(Deposit(1))
            taken.append(envelope.position)

        bank = engine(store)
        await bank.start()
        await write(bank, 1)
        await bank.add_projection("copies", forward, policy=policy)
        await entered.wait()
        stopping = asyncio.ensure_future(bank.stop())
        await asyncio.sleep(0)
        released.set()
        assert (await stopping).finished
        assert taken == []
        async with bank:
            await bank.add_projection("copies", forward, policy=policy)
            projection = bank.projection("copies")
            await projection.wait_for(bank.get(Account, "a-0"), 1)
            assert (taken[0], projection.dead_letters()) == (1, [])

    run(main())


@pytest.mark.parametrize("policy", [ego.Fail(), ego.Skip(park_entity=True)])
def test_a_handler_that_never_waits_leaves_the_loop_to_others(
    store: Store, run: Run, policy: ego.Fail | ego.Skip
) -> None:
    turns = [0]
    between = list[int]()

    def handle(_: ego.EventEnvelope[Any]) -> None:
        between.append(turns[0])
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass

    async def main() -> None:
        def turn() -> None:
            turns[0] += 1
            loop.call_soon(turn)

        loop = asyncio.get_running_loop()
        async with engine(store) as bank:
            await write(bank, 20)
            loop.call_soon(turn)
            await bank.add_projection("slow", handle, policy=policy)
            await bank.projection("slow").wait_for(bank.get(Account, "a-0"), 20)
        assert len(set(between)) == 20

    run(main())


@pytest.mark.parametrize(
    ("policy", "reached"),
    [
        (ego.Fail(), [1, 2]),
        (ego.RetryAndFail(attempts=2, delay=0.001), [1, 2]),
        (ego.RetryAndFail(attempts=3, delay=0.001), [1, 2, 3, 4, 5, 6]),
        (ego.Skip(), [1, 2, 4, 5, 6]),
        (ego.Skip(park_entity=True), [1, 2, 4, 6]),
    ],
)
def test_what_a_failed_handler_wrote_is_taken_back_and_the_rest_is_written_once(
    store: Store, run: Run, tmp_path: Path, policy: ego.Fail | ego.RetryAndFail | ego.Skip, reached: list[int]
) -> None:
    failures = [2]

    def handle(envelope: ego.EventEnvelope[Any], tx: ego.ReadModelTransaction) -> None:
        tx.execute("INSERT INTO seen VALUES (?)", (envelope.position,))
        if envelope.position == 3 and failures[0] > 0:
            failures[0] -= 1
            raise ValueError("not 3")

    def model() -> ego.SQLiteReadModel:
        return ego.SQLiteReadModel(
            tmp_path / "seen.db", create=lambda tx: tx.execute("CREATE TABLE seen (position INTEGER)")
        )

    async def main() -> None:
        async with engine(store) as bank:
            await write(bank, 6, accounts=2)
            await bank.add_projection("seen", handle, policy=policy, into=model())
            if reached[-1] == 2:
                await stopped(bank, "seen")
            else:
                await bank.projection("seen").wait_for(bank.get(Account, "a-1"), 3)
        async with engine(store) as bank:
            failures[0] = 0
            await bank.add_projection("seen", handle, policy=policy, into=model())
            await bank.projection("seen").wait_for(bank.get(Account, "a-1"), 3)
            await bank.projection("seen").retry()

    run(main())
    reader = sqlite3.connect(tmp_path / "seen.db")
    rows = [position for (position,) in reader.execute("SELECT position FROM seen ORDER BY rowid")]
    reader.close()
    assert rows[: len(reached)] == reached
    assert sorted(rows) == [1, 2, 3, 4, 5, 6]
