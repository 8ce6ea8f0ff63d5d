"""Other event-sourcing packages for Python, each in its best durable form, beside our 1,000 callers.

`eventsourcing` as its documentation recommends: an aggregate with decorated methods, saved by an application; the
aggregate stays in memory, so that nothing is read. `eventsource-py`: a repository on its SQLite store, one caller, as
more of them are not faster. Both keep SQLite in WAL mode with synchronous FULL, which are their defaults.
`salamander-db`: one event a batch with `durability="sync"`, one thread, since more of them are slower.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import salamander
from counter import SMALL, add_with_payload, drive
from eventsource import AggregateRepository, AggregateRoot, DomainEvent, SQLiteEventStore, register_event
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from pydantic import BaseModel
from rounds import Figures, Group, Measurement, Ratio

import ego

CALLERS = 1_000
NOTE = add_with_payload(SMALL).note


def groups(folder: Path) -> Iterator[Group]:
    others = {
        "eventsourcing, memory": partial(eventsourcing, folder, sqlite=False),
        "eventsourcing, SQLite FULL": partial(eventsourcing, folder, sqlite=True),
        "eventsource-py, SQLite FULL": partial(eventsource, folder),
        "salamander-db, sync": partial(salamander_sync, folder),
    }
    bounds = {
        "eventsourcing, memory": (40, 80),
        "eventsourcing, SQLite FULL": (60, 150),
        "eventsource-py, SQLite FULL": (100, 300),
        "salamander-db, sync": (100, 300),
    }
    yield Group(
        "other packages",
        [
            Measurement("memory, 1,000 callers", memory),
            Measurement("log, 1,000 callers", partial(log, folder)),
            *(Measurement(name, run) for name, run in others.items()),
        ],
        [
            Ratio(
                f"by {name}",
                ("memory, 1,000 callers" if name.endswith("memory") else "log, 1,000 callers", "rate"),
                (name, "rate"),
                floor=floor,
                aim=aim,
                payload=SMALL,
            )
            for name, (floor, aim) in bounds.items()
        ],
    )


def memory() -> Figures:
    return asyncio.run(drive(ego.MemoryStore(), SMALL, CALLERS, 1_000, timed=False))


def log(folder: Path) -> Figures:
    try:
        return asyncio.run(drive(ego.LogStore(folder / "log"), SMALL, CALLERS, 400, timed=False))
    finally:
        shutil.rmtree(folder / "log", ignore_errors=True)


class Tally(Aggregate):
    @event("Created")
    def __init__(self) -> None:
        self.value = 0

    @event("Added")
    def add(self, by: int, note: str) -> None:
        self.value += by


def eventsourcing(folder: Path, *, sqlite: bool) -> Figures:
    place = folder / "eventsourcing"
    place.mkdir()
    settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(place / "events.db")}
    saves = 2_000 if sqlite else 5_000
    application = Application[UUID](env=settings if sqlite else {})
    try:
        tally = Tally()
        application.save(tally)
        start = time.perf_counter()
        for _ in range(saves):
            tally.add(1, NOTE)
            application.save(tally)
        return {"rate": saves / (time.perf_counter() - start)}
    finally:
        application.close()
        shutil.rmtree(place)


@register_event
class NumberAdded(DomainEvent):
    event_type: str = "NumberAdded"
    aggregate_type: str = "Number"
    by: int
    note: str


class Number(BaseModel):
    value: int = 0


class NumberRoot(AggregateRoot[Number]):
    aggregate_type = "Number"

    def _get_initial_state(self) -> Number:
        return Number()

    def _apply(self, event: DomainEvent) -> None:
        assert isinstance(event, NumberAdded)
        self._state = Number(value=(self._state.value if self._state else 0) + event.by)

    def add(self, by: int, note: str) -> None:
        version = self.get_next_version()
        self.apply_event(NumberAdded(aggregate_id=self.aggregate_id, by=by, note=note, aggregate_version=version))


def eventsource(folder: Path) -> Figures:
    place = folder / "eventsource-py"
    place.mkdir()
    try:
        return asyncio.run(save_numbers(str(place / "events.db"), 1_000))
    finally:
        shutil.rmtree(place)


async def save_numbers(path: str, saves: int) -> Figures:
    store = SQLiteEventStore(path)
    try:
        repository: Any = AggregateRepository(event_store=store, aggregate_factory=NumberRoot, aggregate_type="Number")
        number = repository.create_new(uuid4())
        number.add(1, NOTE)
        await repository.save(number)
        start = time.perf_counter()
        for _ in range(saves):
            number.add(1, NOTE)
            await repository.save(number)
        return {"rate": saves / (time.perf_counter() - start)}
    finally:
        await store.close()


def salamander_sync(folder: Path) -> Figures:
    place, appends = folder / "salamander", 500
    database = salamander.open(str(place))
    try:
        start = time.perf_counter()
        for _ in range(appends):
            database.append_batch("e-1", [{"body": {"by": 1, "note": NOTE}}], durability="sync")
        return {"rate": appends / (time.perf_counter() - start)}
    finally:
        database.close()
        shutil.rmtree(place)
