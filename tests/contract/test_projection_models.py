"""Projections into a read model: whose store it is, and pages of which one event fails."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Deposit
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore
Envelope = ego.EventEnvelope[Any]


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account])


async def deposit(bank: ego.Engine, count: int) -> None:
    for _ in range(count):
        await bank.get(Account, "a").send(Deposit(1))


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as reader:
        return [position for (position,) in reader.execute("SELECT position FROM seen ORDER BY rowid")]


def model(folder: Path) -> ego.SQLiteReadModel:
    return ego.SQLiteReadModel(folder / "seen.db", create=lambda tx: tx.execute("CREATE TABLE seen (position INTEGER)"))


def insert(envelope: Envelope, tx: ego.ReadModelTransaction) -> None:
    tx.execute("INSERT INTO seen VALUES (?)", (envelope.position,))


def test_a_read_model_of_a_store_that_was_thrown_away_is_refused(store: Store, run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        for number, each in enumerate((ego.MemoryStore(), store)):
            async with engine(each) as bank:
                await deposit(bank, 2)
                if number == 0:
                    await bank.add_projection("seen", insert, into=model(tmp_path))
                    await bank.projection("seen").wait_for(bank.get(Account, "a"), 2)
                else:
                    with pytest.raises(ego.ProjectionError, match="was built from store"):
                        await bank.add_projection("seen", insert, into=model(tmp_path))
        assert rows(tmp_path / "seen.db") == [1, 2]

    run(main())


@pytest.mark.parametrize("batch_size", [1, 2, 4, 500])
@pytest.mark.parametrize("policy", [ego.Skip(), ego.RetryAndSkip(attempts=3, delay=0.001)])
def test_pages_are_written_once_though_one_of_their_events_fails(
    store: Store, run: Run, tmp_path: Path, batch_size: int, policy: ego.Skip | ego.RetryAndSkip
) -> None:
    alone = list[int]()

    class Writes:
        async def handle_batch(self, envelopes: list[Envelope], tx: ego.ReadModelTransaction) -> None:
            for envelope in envelopes:
                insert(envelope, tx)
            await asyncio.sleep(0)
            if any(envelope.position == 5 for envelope in envelopes):
                alone.extend(envelope.position for envelope in envelopes if len(envelopes) == 1)
                raise ValueError("no")

    async def main() -> None:
        async with engine(store) as bank:
            await deposit(bank, 9)
            await bank.add_projection("seen", Writes(), policy=policy, batch_size=batch_size, into=model(tmp_path))
            await bank.projection("seen").wait_for(bank.get(Account, "a"), 9)
            [letter] = bank.projection("seen").dead_letters()
            assert (letter.position, letter.attempts) == (5, policy.attempts)
            assert alone == [5] * policy.attempts
            await bank.projection("seen").discard(letter)
            assert bank.stats()["dead_letters"] == 0

    run(main())
    assert rows(tmp_path / "seen.db") == [1, 2, 3, 4, 6, 7, 8, 9]
