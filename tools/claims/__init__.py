"""The claims that `tools/prove.py` checks, one file per group.

A claim is a function that yields rows; the order here is the order of the table, cheap ones first.
"""

from claims import (
    bad_input,
    demo,
    kills,
    memory,
    model,
    progress,
    projections,
    sabotages,
    size,
    soak,
    speed,
    store,
    sweep,
)
from claims.row import Claim

CLAIMS: dict[str, Claim] = {
    "size": size.check,
    "store": store.check,
    "bad-input": bad_input.check,
    "progress": progress.check,
    "memory": memory.check,
    "model": model.check,
    "soak": soak.check,
    "demo": demo.check,
    "kills": kills.check,
    "projections": projections.check,
    "sweep": sweep.check,
    "sabotages": sabotages.check,
    "speed": speed.check,
}
