"""A new store is small and opens quickly."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import ego
from claims.row import Row, Scale

ROUNDS = 21
STORE_MIB = 2.0
OPEN_MS = 10.0


def check(scale: Scale) -> Iterator[Row]:
    stores = [scale.folder / f"new-{number}" for number in range(ROUNDS)]
    created = [asyncio.run(seconds_to_open(store)) * 1e3 for store in stores]
    largest = max(map(mebibytes, stores))
    yield Row("a new store", f"{largest:.2f} MiB on disk", f"< {STORE_MIB:.0f} MiB", largest < STORE_MIB, cases=ROUNDS)
    yield opening("opening a new store", created)
    yield opening("opening it again", [asyncio.run(seconds_to_open(store)) * 1e3 for store in stores])


def opening(claim: str, times: list[float]) -> Row:
    median = statistics.median(times)
    return Row(claim, f"{median:.2f} ms", f"< {OPEN_MS:.0f} ms", median < OPEN_MS, cases=len(times))


async def seconds_to_open(store: Path) -> float:
    engine = ego.Engine("new", ego.LogStore(store))
    start = time.perf_counter()
    await engine.start()
    seconds = time.perf_counter() - start
    await engine.stop()
    return seconds


def mebibytes(store: Path) -> float:
    """What the file system has allocated, not what the files' lengths say."""
    return sum(path.stat().st_blocks * 512 for path in (store, *store.rglob("*"))) / 2**20
