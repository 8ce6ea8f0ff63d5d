"""An engine under random load for minutes: nothing leaks, everybody is answered once, nothing unexpected is logged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from claims.row import REPOSITORY, Row, Scale

SECONDS, SOAK_SECONDS = 60, 600
GROWTH = 0.02
"""Of memory and descriptors, from 30 % of the time to its end."""


class Counts(msgspec.Struct):
    requests: int
    answered: int
    outcomes: dict[str, int]
    restarts: int
    memory: tuple[int, int]
    descriptors: tuple[int, int]
    unexpected: list[str]


def check(scale: Scale) -> Iterator[Row]:
    seconds = SOAK_SECONDS if scale.soak else SECONDS
    harness = REPOSITORY / "tests" / "model" / "soak.py"
    command = [sys.executable, str(harness), str(seconds), str(scale.seed), str(scale.folder)]
    # One arena: what is measured is the memory in use, and not the holes that the threads of earlier starts left.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests" / "lib"), "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    claim = f"a soak of {seconds} s"
    if done.returncode != 0:
        yield Row(claim, f"exit {done.returncode}: {done.stdout.strip()}", "can be checked", False, seed=scale.seed)
        return
    found = msgspec.json.decode(done.stdout, type=Counts)
    print(f"{found.restarts} restarts, {found.outcomes}", *found.unexpected, sep="\n  ", file=sys.stderr)
    lost = found.requests - found.answered
    figure = f"{lost} without one answer"
    yield Row(f"{claim}: answers", figure, "0", lost == 0, cases=found.requests, seed=scale.seed)
    yield growth(f"{claim}: memory", found.memory, "KiB")
    yield growth(f"{claim}: descriptors", found.descriptors, "open")
    unexpected = len(found.unexpected)
    yield Row(f"{claim}: warnings", f"{unexpected} not listed", "0", unexpected == 0, seed=scale.seed)


def growth(claim: str, sizes: tuple[int, int], unit: str) -> Row:
    before, after = sizes
    grown = after / before - 1
    return Row(claim, f"{grown:+.1%}: {before:,} to {after:,} {unit}", f"<= {GROWTH:+.0%}", grown <= GROWTH)
