"""The fixtures `ego_engine`, `ego_log` and `ego_clock`; pytest finds them where ego is installed.

They need no other plugin. A coroutine test, of whatever plugin runs it, writes
`async with ego_engine(Account) as engine:`; a plain test writes `engine = ego_engine(Account)`, which is started
already, and `engine.run(story())`.

At its end a test that passed fails after all if one of its engines left commands unfinished or lost a write that no
fault asked for, or if a fault did not happen.
"""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from ego import LogStore
    from ego.testing import Clock, Engines

PASSED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture
def ego_clock() -> "Clock":
    """A clock that the test moves: `ego_engine(Account, clock=ego_clock)`."""
    from ego.testing import Clock

    return Clock()


@pytest.fixture
def ego_log(tmp_path: Path) -> "LogStore":
    """An empty log: `ego_engine(Account, store=ego_log)`."""
    from ego import LogStore

    return LogStore(tmp_path / "test.ego")


@pytest.fixture
def ego_engine(request: pytest.FixtureRequest) -> "Generator[Engines]":
    """Makes engines, in memory unless they are given a store, and looks at how they end."""
    from ego.testing import Engines

    engines = Engines()
    yield engines
    problems = engines.end()
    if problems and request.node.stash.get(PASSED, False):
        pytest.fail("\n".join(problems), pytrace=False)
