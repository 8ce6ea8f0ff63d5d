"""Every call of the simulated door failed, and a crash after it: the core's own tests, by their summary lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from claims.row import REPOSITORY, Row, Scale

TESTS = ("fault_sweep", "crash_states")
SUMMARY = re.compile(r"cases=(?P<cases>\d+) (?P<bad>(?:\w+=\d+ )+)seed=(?P<seed>\d+)")
SOAK_SEEDS = 20


def check(scale: Scale) -> Iterator[Row]:
    for test in TESTS:
        yield run(test, scale)


def run(test: str, scale: Scale) -> Row:
    """One run over everything; a soak adds further seeds, which decide what a torn write leaves behind."""
    claim, bound = test.replace("_", " "), "0 lost, 0 duplicated, 0 hung, 0 wrong"
    cases, bad = 0, Counter[str]()
    for seed in range(scale.seed, scale.seed + (SOAK_SEEDS if scale.soak else 1)):
        command = ["cargo", "test", "--release", "--locked", "-p", "ego-core", "--test", test, "--", "--nocapture"]
        environment = {**os.environ, "EGO_SIM_SEED": str(seed), "EGO_SWEEP": "full"}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        summary = SUMMARY.search(done.stdout + done.stderr)
        if done.returncode != 0 or summary is None:
            print(done.stdout[-4_000:], done.stderr[-4_000:], sep="\n", file=sys.stderr)
            said = summary["bad"] if summary else "no summary"
            return Row(claim, f"cargo test ended with {done.returncode}: {said}", bound, False, seed=seed)
        cases += int(summary["cases"])
        for name, count in re.findall(r"(\w+)=(\d+)", summary["bad"]):
            bad[name] += int(count)
    figure = ", ".join(f"{count} {name}" for name, count in bad.items())
    return Row(claim, figure, bound, cases > 0 and not any(bad.values()), cases=cases, seed=scale.seed)
