"""Measures everything beside its baseline, prints one table of ratios, and writes results.json.

    python benches/run.py [--only GROUP]... [--rounds N] [--folder PATH] [--output PATH]
    python benches/run.py --base REV [--only GROUP]... [--rounds N]

With `--base` the working tree is compared with that revision, and exit code 1 says that something became slower.

Needs the release wheel and the pinned packages of requirements/bench.txt. Refuses a debug build of ego, a tmpfs, and
a disk whose sync does nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import against
import commands
import core
import durable
import memory
import msgspec
import others
import place
import reading
import replay
import threads
from rounds import Row, measure

HERE = Path(__file__).parent
GROUPS = {module.__name__: module for module in (memory, durable, commands, replay, reading, threads, others, core)}
FEWEST_ROUNDS = 5
COMPARED = ("memory", "durable", "replay")


class Results(msgspec.Struct):
    place: dict[str, str]
    rows: list[Row]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures everything beside its baseline.")
    parser.add_argument("--only", action="append", choices=sorted(GROUPS))
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "bench")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    parser.add_argument("--base", metavar="REV", help="compare the working tree with this revision")
    parser.add_argument("--part", action="store_true", help="these rounds are a part of a longer comparison")
    arguments = parser.parse_args()
    if arguments.rounds < FEWEST_ROUNDS and not arguments.part:
        parser.error(f"--rounds must be at least {FEWEST_ROUNDS}")
    if arguments.base:
        return against.compare(arguments.base, arguments.rounds, arguments.only or COMPARED)

    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        place.check(arguments.folder)
    except place.RefusalError as refusal:
        print(f"benches: {refusal}", file=sys.stderr)
        return 2

    rows: list[Row] = []
    for name in arguments.only or GROUPS:
        for group in GROUPS[name].groups(arguments.folder):
            rows += measure(group, arguments.rounds, told=lambda text: print(f"  {text}", file=sys.stderr))
    results = Results(place.describe(arguments.folder), rows)
    shutil.rmtree(arguments.folder)

    for what, value in results.place.items():
        print(f"{what}: {value}")
    print_table(rows)
    arguments.output.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    return 0


def print_table(rows: list[Row]) -> None:
    columns = f"{'ratio':>8} {'spread':>17} {'ours':>11} {'baseline':>11}  {'floor':>6} {'aim':>5}"
    print(f"\n{'what':46} {'payload':>7} {columns}")
    for row in rows:
        payload = "" if row.payload is None else f"{row.payload} B"
        spread = f"{row.lowest:.3g} to {row.highest:.3g}"
        bounds = "" if row.floor is None or row.aim is None else f"{row.floor:>6g} {row.aim:>5g}  {verdict(row)}"
        print(
            f"{row.name:46} {payload:>7} {row.ratio:>8.3g} {spread:>17}"
            f" {figure(row.subject):>11} {figure(row.baseline):>11}  {bounds}"
        )


def verdict(row: Row) -> str:
    sign = 1 if row.better == "higher" else -1
    if row.floor is None or row.aim is None:
        return ""
    if sign * row.ratio < sign * row.floor:
        return "below the floor" if sign > 0 else "over the floor"
    return "aim reached" if sign * row.ratio >= sign * row.aim else "floor holds"


def figure(value: float) -> str:
    """Rates are large, times are below a second."""
    return f"{value:,.0f}/s" if value >= 1 else f"{value * 1e6:,.1f} us"


if __name__ == "__main__":
    sys.exit(main())
