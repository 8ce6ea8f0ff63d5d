"""kill -9 at random moments. `EGO_SEED=N` replays the plans of a run."""

import os
import random
from pathlib import Path

from harness import run_cycles

CYCLES = 30


def test_nothing_acknowledged_is_lost_or_doubled_over_thirty_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("EGO_SEED") or random.randrange(1_000_000))
    print(f"EGO_SEED={seed}")
    counts = run_cycles(CYCLES, seed, tmp_path)
    print(f"{counts} EGO_SEED={seed}")
    assert counts.cycles == CYCLES
