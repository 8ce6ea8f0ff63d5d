"""Some hundred random programs, on both stores and on both loops, with events and with durable states.

`EGO_MODEL_SEED` says with which program to begin, `EGO_MODEL_CASES` how many run; a failure prints the line that runs
the failing program again. `make prove` runs thousands.
"""

from __future__ import annotations

import ast
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import model
import pytest
from egotest.running import Run
from run import MismatchError, Statistics, check

import ego

SEED = int(os.environ.get("EGO_MODEL_SEED") or random.randrange(1_000_000))
CASES = int(os.environ.get("EGO_MODEL_CASES") or 50)

Maker = Callable[[], ego.LogStore | ego.MemoryStore]


@pytest.fixture(params=["memory", "log"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Makes an empty store at each call: once per kind of store."""
    numbers = itertools.count()
    return ego.MemoryStore if request.param == "memory" else lambda: ego.LogStore(tmp_path / f"{next(numbers)}.ego")


def checked(durable: bool, make: Maker, run: Run, request: pytest.FixtureRequest) -> Statistics:
    try:
        return check(range(SEED, SEED + CASES), durable, lambda: (make(), make() if durable else None), run)
    except MismatchError as error:
        again = f"EGO_MODEL_SEED={error.seed} EGO_MODEL_CASES=1 make python-tests PYTEST='{request.node.nodeid}'"
        pytest.fail(f"{error}\n  {again}", pytrace=False)


def test_entities_of_events_do_what_the_contract_says(make: Maker, run: Run, request: pytest.FixtureRequest) -> None:
    assert checked(False, make, run, request).programs == CASES


def test_entities_of_states_do_what_the_contract_says(make: Maker, run: Run, request: pytest.FixtureRequest) -> None:
    assert checked(True, make, run, request).programs == CASES


def test_the_model_knows_nothing_of_ego() -> None:
    tree = ast.parse(Path(model.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] in ("ego", "egotest") for name in imported), imported
