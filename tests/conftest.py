"""Every test runs on the installed wheel."""

import sysconfig
from pathlib import Path

import pytest
from egotest.running import LOOPS, Run, runner

import ego


def pytest_configure() -> None:
    installed = Path(sysconfig.get_path("platlib"))
    if not Path(ego.__file__).is_relative_to(installed):
        raise pytest.UsageError(
            f"the tests run on the installed wheel, and ego is {ego.__file__}; use make python-tests"
        )


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end: once per kind of event loop."""
    return runner(request.param)


@pytest.fixture(params=["memory", "log"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ego.MemoryStore | ego.LogStore:
    """An empty store: once per kind of store."""
    return ego.MemoryStore() if request.param == "memory" else ego.LogStore(tmp_path / "bank.ego")
