"""Loading an entity of 1,000 events, beside a bare decode and fold of the same bytes.

What was just written is read back by a restarted engine, so from the page cache. Where an entity's events lie in a row
a reader can take many at once; where those of a hundred entities alternate it has to pick.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from counter import PAYLOADS, SMALL, Add, Added, Counter, Sum, add_with_payload
from rounds import Figures, Group, Measurement, Ratio

import ego

ENTITIES = 100
EVENTS = 1_000


def groups(folder: Path) -> Iterator[Group]:
    for payload in PAYLOADS:
        floor, aim = (1.5, 1.15) if payload == SMALL else (None, None)
        loop, seconds = ("bare decode and fold", "seconds"), "seconds"
        yield Group(
            f"replay, {payload} B",
            [
                Measurement("bare decode and fold", partial(bare, payload)),
                Measurement("in a row", partial(replay, folder, payload, alternating=False)),
                Measurement("alternating", partial(replay, folder, payload, alternating=True)),
            ],
            [
                Ratio("replay of 1,000 events in a row", ("in a row", seconds), loop, "lower", floor, aim, payload),
                Ratio("replay of 1,000 alternating events", ("alternating", seconds), loop, "lower", payload=payload),
            ],
        )


def bare(payload: int) -> Figures:
    command = add_with_payload(payload)
    encode = msgspec.msgpack.Encoder().encode
    stored = [encode(Added(command.by, command.note)) for _ in range(EVENTS)]
    decode, counter = msgspec.msgpack.Decoder(Added).decode, Counter("bare")
    fold = counter.handle_event
    start = time.perf_counter()
    for _ in range(ENTITIES):
        state = counter.initial_state()
        for blob in stored:
            state = fold(decode(blob), state)
    return {"seconds": (time.perf_counter() - start) / ENTITIES}


def replay(folder: Path, payload: int, *, alternating: bool) -> Figures:
    store = folder / "replay"
    try:
        return asyncio.run(write_and_replay(store, add_with_payload(payload), alternating=alternating))
    finally:
        shutil.rmtree(store, ignore_errors=True)


async def write_and_replay(store: Path, command: Add, *, alternating: bool) -> Figures:
    engine = ego.Engine("bench", ego.LogStore(store), behaviors=[Counter])
    async with engine:
        refs = [engine.get(Counter, f"e-{number}") for number in range(ENTITIES)]
        if alternating:
            for _ in range(EVENTS):
                await send_all(refs, command)
        else:
            for ref in refs:
                await send_all([ref] * EVENTS, command)
    async with engine:
        start = time.perf_counter()
        answers = [await ref.state() for ref in refs]
        seconds = time.perf_counter() - start
    assert answers == [(Sum(EVENTS), EVENTS)] * ENTITIES
    return {"seconds": seconds / ENTITIES}


async def send_all(refs: list[ego.EntityRef[Add, Sum]], command: Add) -> None:
    """All at once: each is accepted at its call, in this order."""
    for answer in [ref.send(command, timeout=None) for ref in refs]:
        await answer
