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
from typing import cast

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
                Measurement("a feed", partial(reading, folder, payload)),
            ],
            [
                Ratio("events into a def handler", ("a feed", "rate"), bare_rate, "higher", floor, aim, payload),
                Ratio("events filtered out", ("a feed", "filtered rate"), bare_rate, payload=payload),
            ],
        )


class Tally:
    """What a handler does at least: it looks at the event and keeps something of it."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, event: Added) -> None:
        self.total += event.by

    def handle(self, envelope: ego.EventEnvelope[Added]) -> None:
        self.total += envelope.event.by


def bare(payload: int) -> Figures:
    command = add_with_payload(payload)
    encode = msgspec.msgpack.Encoder().encode
    stored = [encode(Added(command.by, command.note)) for _ in range(ENTITIES * EVENTS)]
    decode, tally = msgspec.msgpack.Decoder(Added).decode, Tally()
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
        tally = Tally()
        rate = (ENTITIES * EVENTS + 1) / await read(engine, None, tally.handle)
        assert tally.total == ENTITIES * EVENTS + 1
        filtered = ENTITIES * EVENTS / await read(engine, (Counter.kind, "last"), tally.handle)
        assert tally.total == ENTITIES * EVENTS + 2
    return {"rate": rate, "filtered rate": filtered}


async def read(
    engine: ego.Engine, entity: tuple[str, str] | None, handle: Callable[[ego.EventEnvelope[Added]], None]
) -> float:
    """Seconds until everything was handled, or the last one where there is but one."""
    native = engine._native  # pyright: ignore[reportPrivateUsage]
    end = native.last_position()
    start = time.perf_counter()
    feed = native.feed(0, events=None, kinds=None, entity=entity, shard=None, states=False)
    while feed.position < end and await feed.ready():
        page = cast("list[ego.EventEnvelope[Added]]", feed.take(PAGE))
        for envelope in page:
            handle(envelope)
    seconds = time.perf_counter() - start
    feed.close()
    return seconds
