"""How a figure is made: interleaved rounds, a ratio within each round, the median of the ratios.

What a machine does to a figure (clock, heat, neighbours) it does to both sides of a round, so ratios are compared and
not absolutes. Every round runs the measurements in another order.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Figures = dict[str, float]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measurement:
    """One thing to run. `run` returns its figures: rates in 1/s, times in seconds."""

    name: str
    run: Callable[[], Figures]


@dataclass(frozen=True)
class Ratio:
    """A figure of one measurement by a figure of another (or the same), with what it should be."""

    name: str
    subject: tuple[str, str]
    baseline: tuple[str, str]
    better: Better = "higher"
    floor: float | None = None
    aim: float | None = None
    payload: int | None = None


@dataclass(frozen=True)
class Group:
    """Measurements that share their rounds."""

    name: str
    measurements: Sequence[Measurement]
    ratios: Sequence[Ratio]


class Row(msgspec.Struct):
    """One line of the table; what results.json holds."""

    group: str
    name: str
    ratio: float
    lowest: float
    highest: float
    subject: float
    baseline: float
    subject_is: str
    baseline_is: str
    rounds: int
    better: Better
    floor: float | None
    aim: float | None
    payload: int | None


def measure(group: Group, rounds: int, told: Callable[[str], None]) -> list[Row]:
    samples: dict[str, list[Figures]] = {measurement.name: [] for measurement in group.measurements}
    for number in range(rounds):
        told(f"{group.name}: round {number + 1} of {rounds}")
        shift = number % len(group.measurements)
        for measurement in (*group.measurements[shift:], *group.measurements[:shift]):
            samples[measurement.name].append(measurement.run())
    return [row(group.name, ratio, samples) for ratio in group.ratios]


def row(group: str, ratio: Ratio, samples: dict[str, list[Figures]]) -> Row:
    subject = [figures[ratio.subject[1]] for figures in samples[ratio.subject[0]]]
    baseline = [figures[ratio.baseline[1]] for figures in samples[ratio.baseline[0]]]
    ratios = [ours / theirs for ours, theirs in zip(subject, baseline, strict=True)]
    return Row(
        group=group,
        name=ratio.name,
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        subject=statistics.median(subject),
        baseline=statistics.median(baseline),
        subject_is=" ".join(ratio.subject),
        baseline_is=" ".join(ratio.baseline),
        rounds=len(ratios),
        better=ratio.better,
        floor=ratio.floor,
        aim=ratio.aim,
        payload=ratio.payload,
    )


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    return sorted_values[min(len(sorted_values) - 1, len(sorted_values) * percent // 100)]
