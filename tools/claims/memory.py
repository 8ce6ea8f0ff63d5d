"""Memory: what an entity takes while it is in memory and after it has left, how far a limit holds, what waking costs.

Each figure is taken in a process of its own, on a `LogStore`. RSS is read after a collection and a `malloc_trim`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

import ego

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from claims.counter import Add, Counter, Sum
from claims.row import Row, Scale

ENTITIES = 1_000_000
LIMIT = 10_000
AT_ONCE = 1_000
MEGABYTE = 1_000_000
RESIDENT_BYTES, RESIDENT_AIM = 600, 400
PASSIVATED_BYTES, PASSIVATED_AIM = 60, 40
PEAK_MB = 150
WAKES = 200


class Figures(msgspec.Struct):
    """Of one process: bytes of RSS at the end and at most, bytes of a state, and states that were not right."""

    rss: int
    peak: int
    state: int
    wrong: int


def check(scale: Scale) -> Iterator[Row]:
    few = measure(scale, LIMIT, LIMIT)
    many = measure(scale, ENTITIES, LIMIT)
    resident = measure(scale, ENTITIES, None)
    more = (many.peak - few.peak) / MEGABYTE
    wrong = few.wrong + many.wrong + resident.wrong
    yield Row(
        claim=f"{ENTITIES:,} entities, resident_limit={LIMIT:,}",
        figure=f"{more:.0f} MB above {LIMIT:,} entities, {wrong} wrong",
        bound=f"<= {PEAK_MB} MB, 0 wrong",
        passed=more <= PEAK_MB and wrong == 0,
        cases=ENTITIES,
    )
    added = ENTITIES - LIMIT
    each = (resident.rss - few.rss) / added - resident.state
    yield in_bytes("a resident entity beyond its state", each, RESIDENT_BYTES, RESIDENT_AIM)
    yield in_bytes("a passivated entity", (many.rss - few.rss) / added, PASSIVATED_BYTES, PASSIVATED_AIM)
    for events in (10, 10_000):
        command = [sys.executable, __file__, "wake", str(scale.folder / f"wake-{events}"), str(events)]
        micros = msgspec.json.decode(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout, type=float)
        yield Row(f"waking an entity of {events:,} events", f"{micros:,.0f} us", "measured", True, cases=WAKES)


def in_bytes(claim: str, found: float, bound: int, aim: int) -> Row:
    return Row(claim, f"{found:.0f} bytes", f"<= {bound} (aim {aim})", found <= bound, cases=ENTITIES)


def measure(scale: Scale, entities: int, limit: int | None) -> Figures:
    folder = scale.folder / f"memory-{entities}-{limit}"
    command = [sys.executable, __file__, "touch", str(folder), str(entities), str(limit or 0)]
    return msgspec.json.decode(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout, type=Figures)


async def touch(folder: Path, entities: int, limit: int | None) -> Figures:
    """Sends each entity one command, so many at once, and looks at the states of every hundredth at the end."""
    async with ego.Engine("memory", ego.LogStore(folder), behaviors=[Counter], resident_limit=limit) as engine:
        wrong = 0
        for first in range(0, entities, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, entities))
            sent = [engine.get(Counter, f"e-{number}").send(Add(number), timeout=None) for number in numbers]
            for number, answer in zip(numbers, await asyncio.gather(*sent), strict=True):
                wrong += answer != (Sum(number), 1)
            del sent
        rss, peak = memory_now(), peak_memory()
        for number in range(0, entities, 100):
            wrong += await engine.get(Counter, f"e-{number}").state(timeout=None) != (Sum(number), 1)
        return Figures(rss, peak, sys.getsizeof(Sum(1_000)) + sys.getsizeof(1_000), wrong)


async def wake(folder: Path, events: int) -> float:
    """Microseconds from a question to the answer of an entity that is not in memory, less those of one that is."""
    async with ego.Engine("memory", ego.LogStore(folder), behaviors=[Counter], resident_limit=1) as engine:
        cold, other = engine.get(Counter, "cold"), engine.get(Counter, "other")
        for _ in range(0, events, 100):
            await asyncio.gather(*[cold.send(Add(1), timeout=None) for _ in range(min(events, 100))])
        await other.send(Add(1))
        woken, warm = list[float](), list[float]()
        for _ in range(WAKES):
            for times in (woken, warm):
                start = time.perf_counter()
                await cold.state(timeout=None)
                times.append(time.perf_counter() - start)
            await other.state(timeout=None)
        return (statistics.median(woken) - statistics.median(warm)) * 1e6


def memory_now() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main() -> None:
    what, folder, number, *limit = sys.argv[1:]
    done: Figures | float
    if what == "touch":
        done = asyncio.run(touch(Path(folder), int(number), int(limit[0]) or None))
    else:
        done = asyncio.run(wake(Path(folder), int(number)))
    sys.stdout.buffer.write(msgspec.json.encode(done))


if __name__ == "__main__":
    main()
