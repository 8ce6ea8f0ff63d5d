"""What pytest shows of a failure: the line of the test, and nothing of the kit's insides."""

import subprocess
import sys
from pathlib import Path

FAILING = """
from itertools import count
from egotest.bank import Account, Balance, Deposit, Deposited, Withdraw
from ego.testing import given

def test_expectation():
    given(Account).when(Deposit(1)).then(Deposited(2))

def test_refusal():
    given(Account).when(Withdraw(1)).then()

def test_arrangement():
    given(Account, Deposit(1))

class Impure(Account):
    numbers = count()
    def handle_event(self, event, state):
        return Balance(next(self.numbers))

def test_rule():
    given(Impure).when(Deposit(1))
"""


def test_pytest_shows_the_line_of_the_test(tmp_path: Path) -> None:
    file = tmp_path / "test_failing.py"
    file.write_text(FAILING)
    options = ["-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={tmp_path}"]
    options += ["-o", f"pythonpath={Path(__file__).parents[2] / 'lib'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "4 failed" in done.stdout
    assert "ego/testing" not in done.stdout
    assert ">       given(Account).when(Deposit(1)).then(Deposited(2))" in done.stdout
    assert "E         event 1: Deposited.amount: expected 2, was 1" in done.stdout
    assert ">       given(Account, Deposit(1))" in done.stdout
