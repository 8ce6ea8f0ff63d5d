"""The fixtures, as a user's test files meet them: each story is a pytest run of its own."""

import re
import subprocess
import sys
from pathlib import Path

HEAD = """
import asyncio
import pytest
import ego
from ego.testing import Faults, Gate
from egotest.bank import Account, Balance, Deposit, Do
"""
LIBRARY = Path(__file__).parents[1] / "lib"


def pytest_run(directory: Path, tests: str, **counts: int) -> str:
    """What pytest prints about the tests, once it has counted them as it should."""
    (directory / "test_them.py").write_text(HEAD + tests)
    (directory / "pytest.ini").write_text(f"[pytest]\npythonpath = {LIBRARY}\nfilterwarnings = error\n")
    command = [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    told = re.findall(r"(\d+) (passed|failed|error)", done.stdout.splitlines()[-1])
    assert {what: int(count) for count, what in told} == counts, done.stdout + done.stderr
    return done.stdout


def test_a_plain_test_has_an_engine_that_runs(tmp_path: Path) -> None:
    tests = """
def test_deposits(ego_engine, ego_log, ego_clock):
    engine = ego_engine(Account, store=ego_log, clock=ego_clock)
    account = engine.get(Account, "a")
    async def story():
        before = ego_clock.now()
        assert await account.send(Deposit(5)) == (Balance(5), 1)
        ego_clock.advance(60)
        assert (ego_clock.now() - before).total_seconds() == 60
        await engine.restart()
        return await account.send(Deposit(1))
    assert engine.run(story()) == (Balance(6), 2)

def test_two_engines(ego_engine):
    one, two = ego_engine(Account), ego_engine(ego.Kind(Account, keep_command_ids=0), name="two")
    async def story():
        assert await one.get(Account, "a").send(Deposit(5)) == (Balance(5), 1)
        assert await two.get(Account, "a").state() == (Balance(0), 0)
    one.run(story())

def test_a_class_that_is_refused(ego_engine):
    with pytest.raises(ego.ConfigError):
        ego_engine(Balance)
"""
    pytest_run(tmp_path, tests, passed=3)


def test_a_coroutine_test_enters_its_engine(tmp_path: Path) -> None:
    tests = """
def test_deposits(ego_engine):
    async def coroutine_test():
        async with ego_engine(Account) as engine:
            assert await engine.get(Account, "a").send(Deposit(5)) == (Balance(5), 1)
            with pytest.raises(ego.testing.ArrangementError, match="await instead"):
                engine.run(engine.settled)
    asyncio.run(coroutine_test())
"""
    pytest_run(tmp_path, tests, passed=1)


def test_an_engine_that_ends_wrong_fails_its_test(tmp_path: Path) -> None:
    tests = """
def test_a_fault_that_does_not_happen(ego_engine):
    faults = Faults()
    ego_engine(Account, faults=faults)
    faults.refuse("append", entity=(Account, "nobody"))

def test_an_engine_that_is_left_open(ego_engine):
    async def coroutine_test():
        await ego_engine(Account).start()
    asyncio.run(coroutine_test())

def test_a_command_without_an_end(ego_engine):
    ego.testing._waiting.GUARD = 0.01
    engine = ego_engine(Account)
    async def story():
        gate = Gate()
        async def handler(_account):
            await gate.passed()
        engine.get(Account, "a").tell(Do(handler))
        await asyncio.sleep(0)
    engine.run(story())
"""
    told = pytest_run(tmp_path, tests, passed=3, error=3)
    assert "a fault did not happen: refuse append of account/nobody" in told
    assert "was left open: write `async with ego_engine(...) as engine:`" in told
    assert "left commands without an end: StopReport(finished=False, queued=0, running=1" in told


def test_a_fault_that_happened_is_no_wrong_end(tmp_path: Path) -> None:
    tests = """
def test_a_failed_write(ego_engine, ego_log):
    faults = Faults()
    engine = ego_engine(Account, store=ego_log, faults=faults)
    faults.fail("append")
    async def story():
        with pytest.raises(ego.OutcomeUnknownError):
            await engine.get(Account, "a").send(Deposit(5))
    engine.run(story())
"""
    pytest_run(tmp_path, tests, passed=1)


def test_what_failed_before_is_not_told_twice(tmp_path: Path) -> None:
    tests = """
def test_that_fails(ego_engine):
    faults = Faults()
    ego_engine(Account, faults=faults)
    faults.refuse("append")
    assert False
"""
    pytest_run(tmp_path, tests, failed=1)
