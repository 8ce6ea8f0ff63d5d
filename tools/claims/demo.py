"""The demo on real input comes to the figures of a plain sum, through a kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from claims.row import REPOSITORY, Row, Scale

ROUNDS, SOAK_ROUNDS = 1, 50


def check(scale: Scale) -> Iterator[Row]:
    rounds = SOAK_ROUNDS if scale.soak else ROUNDS
    wrong = 0
    for seed in range(scale.seed, scale.seed + rounds):
        command = [sys.executable, str(REPOSITORY / "examples" / "cdnow.py"), "demo", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            wrong += 1
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    yield Row("CDNOW with a kill", f"{wrong} of {rounds} wrong", "0 wrong", wrong == 0, cases=rounds, seed=scale.seed)
