"""The ratios of benches/run.py against their floors. An aim is reported, a floor must hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import msgspec

from claims.row import REPOSITORY, Row, Scale

RESULTS = REPOSITORY / "benches" / "results.json"


class Bounded(msgspec.Struct):
    """The part of a result that a claim needs; benches/run.py writes more."""

    name: str
    ratio: float
    rounds: int
    better: Literal["higher", "lower"]
    floor: float | None = None
    aim: float | None = None


class Results(msgspec.Struct):
    rows: list[Bounded]


def check(scale: Scale) -> Iterator[Row]:
    command = [sys.executable, str(REPOSITORY / "benches" / "run.py"), *(["--rounds", "15"] if scale.soak else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        yield Row("speed", f"benches/run.py ended with {done.returncode}", "a result", False)
        return
    for row in msgspec.json.decode(RESULTS.read_bytes(), type=Results).rows:
        if row.floor is not None and row.aim is not None:
            yield judged(row, row.floor, row.aim)


def judged(row: Bounded, floor: float, aim: float) -> Row:
    sign = 1 if row.better == "higher" else -1
    reached = "reached" if sign * row.ratio >= sign * aim else "not reached"
    relation = ">=" if row.better == "higher" else "<="
    bound = f"{relation} {floor:g}, aim {aim:g} {reached}"
    return Row(row.name, f"{row.ratio:.3g}", bound, sign * row.ratio >= sign * floor, cases=row.rounds)
