"""Projections under kill -9 and failing handlers. `EGO_SEED=N` replays the rounds of a run."""

import os
import random
from pathlib import Path

import chaos


def test_projections_miss_nothing_and_write_each_row_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("EGO_SEED") or random.randrange(1_000_000))
    print(f"EGO_SEED={seed}")
    counts, wrong = chaos.run(4, seed, tmp_path / "chaos")
    print(f"{counts} EGO_SEED={seed}")
    assert wrong is None, f"{wrong}, EGO_SEED={seed}"
    assert counts.events >= 4 * chaos.EVENTS
