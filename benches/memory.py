"""The memory store beside the bare loop: what the engine itself costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from counter import PAYLOADS, SMALL, bare_loop, memory
from rounds import Group, Measurement, Ratio


def groups(_: Path) -> Iterator[Group]:
    for payload in PAYLOADS:
        small = payload == SMALL
        yield Group(
            f"memory store, {payload} B",
            [
                Measurement("bare loop", partial(bare_loop, payload)),
                Measurement("1 caller", partial(memory, payload, 1)),
                Measurement("1,000 callers", partial(memory, payload, 1_000)),
            ],
            [
                Ratio(
                    "memory, 1 caller, 1 entity",
                    ("1 caller", "rate"),
                    ("bare loop", "rate"),
                    floor=0.45 if small else None,
                    aim=0.65 if small else None,
                    payload=payload,
                ),
                Ratio(
                    "memory, 1,000 callers and entities",
                    ("1,000 callers", "rate"),
                    ("bare loop", "rate"),
                    floor=0.38 if small else None,
                    aim=0.55 if small else None,
                    payload=payload,
                ),
            ],
        )
