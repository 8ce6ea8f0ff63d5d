"""kill -9 at random moments, with 1 to 64 writers: see tests/crash/harness.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import msgspec

from claims.row import REPOSITORY, Row, Scale

CYCLES, SOAK_CYCLES = 300, 10_000


class Counts(msgspec.Struct):
    cycles: int
    acknowledged: int


def check(scale: Scale) -> Iterator[Row]:
    claim, bound = "kill -9 with a unit in flight", "0 lost, 0 doubled, 0 half"
    cycles = SOAK_CYCLES if scale.soak else CYCLES
    harness = REPOSITORY / "tests" / "crash" / "harness.py"
    command = [sys.executable, str(harness), str(cycles), str(scale.seed), str(scale.folder / "kills")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        yield Row(claim, done.stdout.strip(), bound, False, seed=scale.seed)
        return
    counts = msgspec.json.decode(done.stdout, type=Counts)
    figure = f"0 of {counts.acknowledged:,} acknowledged lost"
    yield Row(claim, figure, bound, counts.cycles >= cycles, cases=counts.cycles, seed=scale.seed)
