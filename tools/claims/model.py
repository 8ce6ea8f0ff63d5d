"""Random programs of every operation do what a model of the contract does: see tests/model."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import msgspec

from claims.row import REPOSITORY, Row, Scale

CASES, SOAK_CASES = 2_000, 20_000
SHARE = 0.01
"""Of the steps, for each operation and each way to end."""
OF_STATES_ALONE = ("VersionError",)


class Statistics(msgspec.Struct):
    programs: int
    steps: int
    operations: dict[str, int]
    outcomes: dict[str, int]


def check(scale: Scale) -> Iterator[Row]:
    cases, steps = SOAK_CASES if scale.soak else CASES, Counter[str]()
    operations, outcomes = Counter[str](), Counter[str]()
    for store, sort in itertools.product(("memory", "log"), ("events", "states")):
        claim, bound = f"a model of the contract: {store}, {sort}", "0 programs differ"
        harness = REPOSITORY / "tests" / "model" / "many.py"
        command = [sys.executable, str(harness), str(cases), str(scale.seed), str(scale.folder), store, sort]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests" / "lib")}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            yield Row(claim, done.stdout.strip() or f"exit {done.returncode}", bound, False, seed=scale.seed)
            continue
        found = msgspec.json.decode(done.stdout, type=Statistics)
        yield Row(claim, f"0 of {found.steps:,} steps differ", bound, found.programs == cases, cases, scale.seed)
        steps[sort] += found.steps
        operations.update(found.operations)
        outcomes.update(found.outcomes)
    for claim, counts in (("the rarest operation", operations), ("the rarest way to end", outcomes)):
        shares = {
            name: count / (steps["states"] if name in OF_STATES_ALONE else steps.total())
            for name, count in counts.items()
        }
        print(claim, *(f"{name} {share:.1%}" for name, share in sorted(shares.items())), sep=", ", file=sys.stderr)
        name = min(shares, key=lambda name: shares[name])
        figure = f"{name}: {shares[name]:.1%} of the steps"
        yield Row(claim, figure, f">= {SHARE:.0%}", shares[name] >= SHARE, len(shares), scale.seed)
