"""The end of a process: by itself, by Ctrl-C, with an engine left open."""

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import asyncio, os, signal, sys
import ego
import uvloop
from egotest.bank import Account, Balance, Deposit, Do, Gate

# Whoever runs the tests in the background may have switched Ctrl-C off.
signal.signal(signal.SIGINT, signal.default_int_handler)

def store():
    return ego.LogStore(sys.argv[1]) if sys.argv[1] else ego.MemoryStore()

def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None) as runner:
        runner.run(main)
"""
LIBRARY = Path(__file__).parents[1] / "lib"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["memory", "log"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "" if request.param == "memory" else str(tmp_path / "bank.ego")


def python(code: str, path: str, loop: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", PRELUDE + code, path, loop],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(LIBRARY)},
    )


def test_an_engine_that_is_left_open_at_the_end(path: str, loop: str) -> None:
    done = python(
        """
async def main():
    global bank
    bank = ego.Engine("bank", store(), behaviors=[Account])
    await bank.start()
    print(await bank.get(Account, "a").send(Deposit(1)))
    bank.get(Account, "a").send(Deposit(1))

run(main())
""",
        path,
        loop,
    )
    assert (done.returncode, done.stdout) == (0, "(Balance(amount=1), 1)\n")
    assert "ResourceWarning: <ego.Engine 'bank' started> was not stopped" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_an_end_in_the_middle_of_handlers(path: str, loop: str) -> None:
    done = python(
        """
async def main():
    global bank
    bank = ego.Engine("bank", store(), behaviors=[Account])
    await bank.start()
    gate = Gate()
    running = bank.get(Account, "a").send(gate.command())
    queued = [bank.get(Account, "a").send(Deposit(1)) for _ in range(10)]
    await gate.reached.wait()
    os.write(1, b"so far")
    sys.exit(3)

run(main())
""",
        path,
        loop,
    )
    assert (done.returncode, done.stdout) == (3, "so far")
    assert "Fatal" not in done.stderr


def test_ctrl_c_stops_the_engine(path: str, loop: str) -> None:
    code = """
async def main():
    async with ego.Engine("bank", store(), behaviors=[Account]) as bank:
        answers = [bank.get(Account, f"a-{n}").send(Deposit(n)) for n in range(100)]
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            print([(await each)[1] for each in answers] == [1] * 100)
    print("not reached")

try:
    run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python(code, path, loop)
    assert (done.returncode, done.stdout) == (0, "True\ninterrupted\n")
    assert "Traceback" not in done.stderr


def test_keyboard_interrupt_in_a_handler_ends_the_program(path: str, loop: str) -> None:
    code = """
def interrupt(_account):
    raise KeyboardInterrupt

async def main():
    async with ego.Engine("bank", store(), behaviors=[Account]) as bank:
        await bank.get(Account, "a").send(Do(interrupt))
    print("not reached")

try:
    run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python(code, path, loop)
    assert (done.returncode, done.stdout) == (0, "interrupted\n")
    assert "Fatal" not in done.stderr


def test_many_starts_and_stops_leave_no_descriptor_and_no_thread(path: str, loop: str) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor

def open_things():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

async def main():
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)
    before = open_things()
    engine = ego.Engine("bank", store(), behaviors=[Account])
    for n in range(1, 21):
        async with engine:
            assert (await engine.get(Account, "a").send(Deposit(1)))[1] == n
            assert open_things() > before
    while open_things() != before:        # the thread that closed the store lets go of it a moment later
        await asyncio.sleep(0)
    print("as before")

run(main())
"""
    done = python(code, path, loop)
    assert (done.returncode, done.stdout) == (0, "as before\n"), done.stderr
