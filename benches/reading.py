"""Reading a store from its beginning into a `def` handler, beside a bare loop that decodes the same bytes and calls it.

The store is read back by a restarted engine, so from the page cache.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from counter import PAYLOADS, SMALL, Added, Counter, add_with_payload
from rounds import Figures, Group, Measurement, Ratio

import ego

ENTITIES = 100
EVENTS = 1_000
PAGE = 250
"""Larger pages have the collector look at each of them: they are more new objects than its first threshold."""


def groups(folder: Path) -> Iterator[Group]:
    for payload in PAYLOADS:
        floor, aim = (0.35, 0.6) if payload == SMALL else (None, None)
        bare_rate = ("bare decode and call", "rate")
        yield Group(
            f"reading, {payload} B",
            [
                Measurement("bare decode and call", partial(bare, payload)),
                Measurement("a projection", partial(reading, folder, payload)),
            ],
            [
                Ratio("events into a def handler", ("a projection", "rate"), bare_rate, "higher", floor, aim, payload),
                Ratio(
                    "events into handle_batch",
                    ("a projection", "batch rate"),
                    bare_rate,
                    "higher",
                    0.6 if payload == SMALL else None,
                    0.8 if payload == SMALL else None,
                    payload,
                ),
                Ratio("events filtered out", ("a projection", "filtered rate"), bare_rate, payload=payload),
            ],
        )


class Tally:
    """What a handler does at least: it looks at the event and keeps something of it."""

    def __init__(self, end: int) -> None:
        self.total = 0
        self.end = end
        self.done = asyncio.Event()

    def add(self, event: Added) -> None:
        self.total += event.by
        if self.total == self.end:
            self.done.set()

    def handle(self, envelope: ego.EventEnvelope[Added]) -> None:
        self.total += envelope.event.by
        if self.total == self.end:
            self.done.set()

    def handle_all(self, envelopes: list[ego.EventEnvelope[Added]]) -> None:
        total = self.total
        for envelope in envelopes:
            total += envelope.event.by
        self.total = total
        if total == self.end:
            self.done.set()


def bare(payload: int) -> Figures:
    command = add_with_payload(payload)
    encode = msgspec.msgpack.Encoder().encode
    stored = [encode(Added(command.by, command.note)) for _ in range(ENTITIES * EVENTS)]
    decode, tally = msgspec.msgpack.Decoder(Added).decode, Tally(ENTITIES * EVENTS)
    handle = tally.add
    start = time.perf_counter()
    for blob in stored:
        handle(decode(blob))
    seconds = time.perf_counter() - start
    assert tally.total == ENTITIES * EVENTS
    return {"rate": ENTITIES * EVENTS / seconds}


def reading(folder: Path, payload: int) -> Figures:
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "reading"
    try:
        return asyncio.run(write_and_read(store, payload))
    finally:
        shutil.rmtree(store, ignore_errors=True)


async def write_and_read(store: Path, payload: int) -> Figures:
    command = add_with_payload(payload)
    engine = ego.Engine("bench", ego.LogStore(store), behaviors=[Counter])
    async with engine:
        refs = [engine.get(Counter, f"e-{number}") for number in range(ENTITIES)]
        for _ in range(EVENTS):
            for answer in [ref.send(command, timeout=None) for ref in refs]:
                await answer
        await engine.get(Counter, "last").send(command)
    async with engine:
        rate = EVENTS * ENTITIES / await project(engine, lambda tally: tally.handle)
        batch_rate = EVENTS * ENTITIES / await project(engine, Batches)
        filtered = ENTITIES * EVENTS / await pass_over(engine)
    return {"rate": rate, "batch rate": batch_rate, "filtered rate": filtered}


class Batches:
    """A handler that is given many at once."""

    def __init__(self, tally: Tally) -> None:
        self.handle_batch = tally.handle_all


async def project(engine: ego.Engine, handler_of: Callable[[Tally], object]) -> float:
    """Seconds until a projection, added now, has handled everything."""
    tally = Tally(ENTITIES * EVENTS + 1)
    start = time.perf_counter()
    await engine.add_projection("all", handler_of(tally), start=0)
    await tally.done.wait()
    seconds = time.perf_counter() - start
    await engine.remove_projection("all")
    native = engine._native  # pyright: ignore[reportPrivateUsage]
    await native.note("offset/all", None, soon=True)
    return seconds


async def pass_over(engine: ego.Engine) -> float:
    """Seconds until the one event of an entity was found behind those of all others."""
    native = engine._native  # pyright: ignore[reportPrivateUsage]
    start = time.perf_counter()
    feed = native.feed(0, events=None, kinds=None, entity=(Counter.kind, "last"), shard=None, states=False)
    while not feed.take(PAGE):
        await feed.ready()
    seconds = time.perf_counter() - start
    feed.close()
    return seconds
