"""Projections under kill -9, stops and failing handlers: see tests/crash/chaos.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from claims.row import REPOSITORY, Row, Scale

ROUNDS, SOAK_ROUNDS = 50, 500


class Counts(msgspec.Struct):
    rounds: int
    events: int
    kills: int


def check(scale: Scale) -> Iterator[Row]:
    claim, bound = "projections under kill -9", "0 missing, in order, rows once"
    rounds = SOAK_ROUNDS if scale.soak else ROUNDS
    harness = REPOSITORY / "tests" / "crash" / "chaos.py"
    command = [sys.executable, str(harness), str(rounds), str(scale.seed), str(scale.folder / "chaos")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests" / "lib")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        yield Row(claim, done.stdout.strip(), bound, False, seed=scale.seed)
        return
    counts = msgspec.json.decode(done.stdout, type=Counts)
    figure = f"0 wrong of {counts.events:,} events, {counts.kills} kills"
    yield Row(claim, figure, bound, counts.rounds >= rounds, cases=counts.rounds, seed=scale.seed)
