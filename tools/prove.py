"""Checks every claim that the project makes and prints a row for each.

    python tools/prove.py [--only NAME]... [--soak] [--seed N] [--folder PATH]

Exit code 0 where every row passed. Stores are made below build/, so that they lie on the disk of the checkout and not
on a tmpfs; what a failed claim leaves there is kept.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from claims import CLAIMS
from claims.row import REPOSITORY, Claim, Row, Scale


def rows_of(claim: Claim, name: str, scale: Scale) -> Iterator[Row]:
    """A claim that cannot be checked is not fulfilled."""
    try:
        yield from claim(scale)
    except Exception as error:
        traceback.print_exc()
        yield Row(name, f"{type(error).__name__}: {error}", "can be checked", False, seed=scale.seed)


def print_table(names: Iterable[str], scale: Scale) -> int:
    """Prints each row as soon as it is known; returns how many failed."""
    print(f"{'claim':40} {'figure':46} {'bound':36} {'cases':>10} {'seed':>8}  result")
    failed = 0
    for name in names:
        start = time.perf_counter()
        for row in rows_of(CLAIMS[name], name, scale):
            cases = "" if row.cases is None else f"{row.cases:,}"
            seed = "" if row.seed is None else str(row.seed)
            result = "PASS" if row.passed else "FAIL"
            print(f"{row.claim:40} {row.figure:46} {row.bound:36} {cases:>10} {seed:>8}  {result}", flush=True)
            failed += not row.passed
        print(f"  {name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks every claim and prints a row for each.")
    parser.add_argument("--only", action="append", choices=sorted(CLAIMS), help="this group alone; may be repeated")
    parser.add_argument("--soak", action="store_true", help="the long sizes")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("EGO_SEED") or random.randrange(1_000_000)))
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "prove")
    arguments = parser.parse_args()

    folder = arguments.folder / f"run-{os.getpid()}"
    folder.mkdir(parents=True)
    failed = print_table(arguments.only or CLAIMS, Scale(arguments.soak, arguments.seed, folder))
    if failed:
        print(f"{failed} FAILED; seed {arguments.seed}, stores in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"every claim holds; seed {arguments.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
