"""The log without Python: rust/core/benches/append.rs, read from criterion's estimates."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rounds import Figures, Group, Measurement, Ratio

REPOSITORY = Path(__file__).parents[1]
BENCHES = {"raw loop": "raw", "1 writer": "writers_1", "64 writers": "writers_64"}


def groups(folder: Path) -> Iterator[Group]:
    def run(bench: str) -> Figures:
        command = ["cargo", "bench", "-q", "-p", "ego-core", "--bench", "append", "--", "--noplot", f"^append/{bench}$"]
        place = folder.resolve()
        environment = {**os.environ, "EGO_BENCH_FOLDER": str(place), "CRITERION_HOME": str(place / "criterion")}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout}{done.stderr}\nthe benchmark of the core failed")
        estimates = json.loads((place / "criterion" / "append" / bench / "new" / "estimates.json").read_bytes())
        return {"rate": 1e9 / estimates["median"]["point_estimate"]}

    yield Group(
        "log append in Rust, 256 B",
        [Measurement(name, partial(run, bench)) for name, bench in BENCHES.items()],
        [
            Ratio("log append in Rust, 1 writer", ("1 writer", "rate"), ("raw loop", "rate"), floor=0.8, aim=0.95),
            Ratio("log append in Rust, 64 writers", ("64 writers", "rate"), ("raw loop", "rate"), floor=25, aim=45),
        ],
    )
