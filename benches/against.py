"""Compares the working tree with another revision: both built, both installed beside each other, rounds interleaved.

Each round measures both revisions with the benchmarks of the working tree and compares their ratios to the bare
baselines. The comparison fails where one is over 5 % slower: in the median, and in more than three of four rounds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rounds import Row

REPOSITORY = Path(__file__).parents[1]
BUILD = REPOSITORY / "build" / "against"
TOLERATED = 0.05
SIDES = ("base", "new")


class Results(msgspec.Struct):
    rows: list[Row]


def compare(revision: str, rounds: int, groups: Sequence[str]) -> int:
    """Builds, measures, prints; returns the exit code."""
    BUILD.mkdir(parents=True, exist_ok=True)
    tree = BUILD / "tree"
    git("worktree", "add", "--force", "--detach", str(tree), revision)
    try:
        install(tree, BUILD / "base")
    finally:
        git("worktree", "remove", "--force", str(tree))
    install(REPOSITORY, BUILD / "new")

    measured: dict[str, list[list[Row]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            print(f"  round {number + 1} of {rounds}: {side}", file=sys.stderr)
            measured[side].append(one_round(BUILD / side, groups))
    return judge(measured["base"], measured["new"])


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True)


def install(tree: Path, site: Path) -> None:
    """Builds the release wheel of a tree and unpacks it, alone, into a folder."""
    wheels = site.with_suffix(".wheels")
    build = ["build", "--release", "--locked", "--interpreter", sys.executable, "--out", str(wheels)]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(REPOSITORY / "target")}
    subprocess.run([sys.executable, "-m", "maturin", *build], cwd=tree, env=environment, check=True)
    newest = max(wheels.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    into = ["install", "--quiet", "--no-deps", "--upgrade", "--target", str(site), str(newest)]
    subprocess.run([sys.executable, "-m", "pip", *into], check=True)


def one_round(site: Path, groups: Sequence[str]) -> list[Row]:
    output = BUILD / "round.json"
    only = [word for group in groups for word in ("--only", group)]
    command = [sys.executable, str(REPOSITORY / "benches" / "run.py"), "--part", "--rounds", "1", *only]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([*command, "--output", str(output)], env=environment, check=True, stdout=subprocess.DEVNULL)
    return msgspec.json.decode(output.read_bytes(), type=Results).rows


def judge(base: list[list[Row]], new: list[list[Row]]) -> int:
    """Slower is a benchmark whose median gain is below the tolerated one, and that lost in most of its rounds."""
    slower = 0
    print(f"{'what':46} {'payload':>7} {'base':>9} {'new':>9} {'gain':>7} {'spread':>18}")
    for rows in zip(*base, *new, strict=True):
        before, after = rows[: len(base)], rows[len(base) :]
        gains = sorted(gain(old, now) for old, now in zip(before, after, strict=True))
        median = statistics.median(gains)
        lost = sum(each < 0 for each in gains) > len(gains) * 3 / 4
        worse = median < -TOLERATED and lost
        slower += worse
        payload = "" if rows[0].payload is None else f"{rows[0].payload} B"
        ratios = f"{middle(before):>9.3g} {middle(after):>9.3g}"
        spread = f"{gains[0]:+.1%} to {gains[-1]:+.1%}"
        print(f"{rows[0].name:46} {payload:>7} {ratios} {median:>+7.1%} {spread:>18}{'  SLOWER' if worse else ''}")
    return 1 if slower else 0


def gain(before: Row, after: Row) -> float:
    """How much better the ratio is within one round, whichever way is better."""
    change = after.ratio / before.ratio
    return change - 1 if before.better == "higher" else 1 / change - 1


def middle(rows: Sequence[Row]) -> float:
    return statistics.median(row.ratio for row in rows)
