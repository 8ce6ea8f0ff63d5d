"""Runs many programs and prints what was done, as JSON: `many.py CASES SEED FOLDER memory|log events|states`."""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import msgspec
from egotest.running import LOOPS, runner
from run import MismatchError, Statistics, Store, check

import ego

CHUNK = 500


def chunk(seeds: range, folder: Path, store: str, durable: bool) -> Statistics:
    """Some programs, on each kind of loop in turn."""
    loop = sorted(LOOPS)[seeds.start // CHUNK % len(LOOPS)]
    numbers = itertools.count()

    def make() -> Store:
        return ego.MemoryStore() if store == "memory" else ego.LogStore(folder / f"{next(numbers)}.ego")

    return check(seeds, durable, lambda: (make(), make() if durable else None), runner(loop))


def main() -> int:
    cases, seed, folder, store, sort = sys.argv[1:]
    statistics, last = Statistics(), int(seed) + int(cases)
    for start in range(int(seed), last, CHUNK):
        with tempfile.TemporaryDirectory(dir=folder) as stores:
            seeds = range(start, min(start + CHUNK, last))
            try:
                statistics.add(chunk(seeds, Path(stores), store, sort == "states"))
            except MismatchError as error:
                print(error)
                return 1
    print(msgspec.json.encode(statistics).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
