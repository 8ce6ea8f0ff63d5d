"""Projections under kill -9, stops, failing handlers and odd pages: nothing is missing, and rows are written once.

    python tests/crash/chaos.py ROUNDS SEED FOLDER

Each round has a store of its own with 20 to 99 entities. Processes write to it and project it in four ways; the parent
kills them at random moments, a handler under way or not, or lets them stop. The last process writes on until there are
at least a thousand events, and lets everything catch up. Then what the handlers kept is held against the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from egotest.bank import Account, Split

import ego
from ego import _native

EVENTS = 1_000
FAILURES = 0.01
LONGEST = 120
"""Seconds that a process may take: one that hangs is ended by its alarm."""
ATTEMPTS = ego.RetryAndFail(attempts=20, delay=0.001)


class Seen(NamedTuple):
    """An event, as a handler keeps it."""

    position: int
    entity_id: str
    revision: int


class Counts(msgspec.Struct):
    """What a run has seen."""

    rounds: int = 0
    events: int = 0
    kills: int = 0
    stops: int = 0
    again: int = 0
    """Events that an at-least-once handler has seen more than once."""


class Lines:
    """A file with a line for each event that a handler has taken. What is written outlives the process."""

    def __init__(self, path: Path, dice: random.Random, failures: float) -> None:
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self.dice = dice
        self.failures = failures

    def handle(self, envelope: ego.EventEnvelope[Any]) -> None:
        if self.dice.random() < self.failures:
            raise ValueError("one of a hundred")
        os.write(self.file, f"{envelope.position} {envelope.entity_id} {envelope.revision}\n".encode())


class LaterLines(Lines):
    """The same, so that a kill can come while a handler waits."""

    async def handle(self, envelope: ego.EventEnvelope[Any]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().handle(envelope)


def read_lines(path: Path) -> list[Seen]:
    """What was kept in a file."""
    rows = (line.split(" ") for line in path.read_text().splitlines())
    return [Seen(int(position), entity_id, int(revision)) for position, entity_id, revision in rows]


async def work(folder: Path, seed: int, entities: int, *, is_last: bool) -> None:
    """One process: writes, projects, and says so with a line for each command."""
    logging.getLogger("ego").setLevel(logging.ERROR)
    signal.alarm(LONGEST)
    dice = random.Random(seed)

    def add_row(envelope: ego.EventEnvelope[Any], tx: ego.ReadModelTransaction) -> None:
        tx.execute("INSERT INTO seen VALUES (?, ?, ?)", (envelope.position, envelope.entity_id, envelope.revision))
        if dice.random() < FAILURES:
            raise ValueError("one of a hundred")

    def tables(tx: ego.ReadModelTransaction) -> None:
        tx.execute("CREATE TABLE seen (position INTEGER, entity_id TEXT, revision INTEGER)")

    def size() -> int:
        return dice.choice([1, 2, 7, 33, 250, 500])

    async with ego.Engine("chaos", ego.LogStore(folder / "store"), behaviors=[Account]) as engine:
        model = ego.SQLiteReadModel(folder / "rows.db", create=tables)
        await engine.add_projection("lines", Lines(folder / "lines", dice, 0), batch_size=size())
        later = LaterLines(folder / "later", dice, FAILURES)
        await engine.add_projection("later", later, policy=ATTEMPTS, batch_size=size())
        parked = Lines(folder / "parked", dice, FAILURES)
        await engine.add_projection("parked", parked, policy=ego.Skip(park_entity=True), batch_size=size())
        await engine.add_projection("rows", add_row, policy=ATTEMPTS, into=model, batch_size=size())

        async def write(accounts: list[int]) -> None:
            for account in accounts:
                _, revision = await engine.get(Account, f"a-{account}").send(Split((1, 2)))
                last[account] = revision
                print("command", flush=True)

        last = dict[int, int]()
        missing = max(0, EVENTS - engine.stats()["position"]) // 2
        count = missing if is_last else dice.randrange(20, 300)
        chosen = [dice.randrange(entities) for _ in range(count)]
        writers = dice.choice([1, 2, 16])
        await asyncio.gather(*(write(chosen[number::writers]) for number in range(writers)))
        if is_last:
            await catch_up(engine)


async def catch_up(engine: ego.Engine) -> None:
    """Waits until every projection has handled everything, and every dead letter was taken."""
    account = engine.get(Account, "a-0")
    _, revision = await account.send(Split((1, 2)))
    for name in ("lines", "later", "parked", "rows"):
        projection = engine.projection(name)
        await projection.wait_for(account, revision, timeout=60)
        while projection.dead_letters():
            await projection.retry()


def play(folder: Path, dice: random.Random, counts: Counts) -> str | None:
    """One round; what is wrong, if anything is."""
    folder.mkdir(parents=True)
    entities = dice.randrange(20, 100)
    for _ in range(dice.randrange(2, 6)):
        with process(folder, dice, entities, "more") as child:
            assert child.stdout is not None
            if dice.random() < 0.2:
                child.stdout.read()
            else:
                for _ in range(dice.randrange(200)):
                    child.stdout.readline()
                child.send_signal(signal.SIGKILL)
        if child.returncode not in (0, -signal.SIGKILL):
            return f"a process ended with {child.returncode}"
        counts.kills += child.returncode != 0
        counts.stops += child.returncode == 0
    with process(folder, dice, entities, "last") as child:
        assert child.stdout is not None
        child.stdout.read()
    if child.returncode != 0:
        return f"the last process ended with {child.returncode}"
    stored = read_store(folder / "store")
    counts.events += len(stored)
    return wrong(folder, stored, counts)


def process(folder: Path, dice: random.Random, entities: int, how: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--work", str(folder), str(dice.randrange(2**32)), str(entities), how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "lib")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def read_store(path: Path) -> list[Seen]:
    """Every event of the store, in order, as the journal has it: no projection and no feed has a part in it."""
    options = {"shards": 128, "segment_bytes": 1 << 26, "max_unit_bytes": 1 << 20, "max_queue_bytes": 1 << 26}
    store = _native.Store.open_log(str(path), **options, clock=None)
    stored = list[Seen]()
    try:
        while page := store.read_from(len(stored) + 1, 10_000):
            stored += [Seen(row[3], row[1], row[2]) for row in page]
    finally:
        store.close()
    return stored


def wrong(folder: Path, stored: list[Seen], counts: Counts) -> str | None:
    """What a handler has kept that is not so, if there is anything."""
    if len(stored) < EVENTS or [seen.position for seen in stored] != list(range(1, len(stored) + 1)):
        return f"the store has {len(stored)} events, or not all positions"
    for name in ("lines", "later"):
        kept, reached = read_lines(folder / name), 0
        for seen in kept:
            if seen.position > reached + 1:
                return f"{name}: {seen.position} comes after {reached}"
            if seen != stored[seen.position - 1]:
                return f"{name}: {seen} is not what is stored"
            reached = max(reached, seen.position)
        if reached != len(stored):
            return f"{name}: ends at {reached} of {len(stored)}"
        counts.again += len(kept) - len(stored)
    first, parked = dict[str, int](), set[Seen]()
    for seen in read_lines(folder / "parked"):
        if seen not in parked and seen.revision != first.get(seen.entity_id, 0) + 1:
            return f"parked: {seen} comes after revision {first.get(seen.entity_id, 0)} of its entity"
        first[seen.entity_id] = max(seen.revision, first.get(seen.entity_id, 0))
        parked.add(seen)
    if parked != set(stored):
        return f"parked: {len(set(stored) - parked)} are missing"
    with closing(sqlite3.connect(folder / "rows.db")) as reader:
        rows = [Seen(*row) for row in reader.execute("SELECT * FROM seen ORDER BY rowid")]
    return (
        None if rows == stored else f"rows: {len(rows)} rows are not the {len(stored)} events, each once and in order"
    )


def run(rounds: int, seed: int, folder: Path) -> tuple[Counts, str | None]:
    """Plays rounds until one is wrong."""
    counts, dice = Counts(), random.Random(seed)
    for number in range(rounds):
        place = folder / f"round-{number}"
        if (found := play(place, dice, counts)) is not None:
            return counts, f"round {number}: {found}"
        counts.rounds += 1
        shutil.rmtree(place)
    return counts, None


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        asyncio.run(work(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), is_last=sys.argv[5] == "last"))
    else:
        all_counts, problem = run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
        print(problem or msgspec.json.encode(all_counts).decode())
        sys.exit(1 if problem else 0)
