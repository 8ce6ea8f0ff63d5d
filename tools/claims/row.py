"""One line of the table, and what a claim is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Scale:
    """How much to do, where, and from which seed."""

    soak: bool
    seed: int
    folder: Path


@dataclass(frozen=True)
class Row:
    claim: str
    figure: str
    bound: str
    passed: bool
    cases: int | None = None
    seed: int | str | None = None


Claim = Callable[[Scale], Iterable[Row]]
