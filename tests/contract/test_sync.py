"""`ego.sync`: the same engine for threads that block."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, InsufficientFundsError, Look, Withdraw

import ego
import ego.sync

Store = ego.LogStore | ego.MemoryStore

THREADS = 64
ROUNDS = 20
LIBRARY = Path(__file__).parents[1] / "lib"


def engine(store: Store, **options: Any) -> ego.sync.Engine:
    return ego.sync.Engine("bank", store, behaviors=[Account], **options)


def in_threads(count: int, body: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(body, range(count), timeout=60))


class Gate:
    """An `async def` handler's wait that a thread ends."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    async def passed(self) -> None:
        self.reached.set()
        await asyncio.to_thread(self.opened.wait, 60)

    def command(self) -> Do:
        return Do(lambda _: self.passed())


def test_a_counter_counts_on_over_restarts(store: Store) -> None:
    bank = engine(store)
    for n in range(1, 4):
        with bank:
            assert bank.started
            account = bank.get(Account, "a")
            assert account.send(Deposit(1)) == (Balance(n), n)
            assert account.state() == (Balance(n), n)
            assert bank.is_resident(Account, "a")
            assert bank.stats()["ok"] == 2 * n
        assert not bank.started


@pytest.mark.parametrize("entities", [1, 3, THREADS])
def test_threads_see_every_revision_once_and_in_order(store: Store, entities: int) -> None:
    with engine(store) as bank:

        def caller(number: int) -> list[int]:
            account = bank.get(Account, f"a-{number % entities}")
            seen: list[int] = []
            for _ in range(ROUNDS):
                balance, revision = account.send(Deposit(1), timeout=30)
                assert balance.amount == revision
                seen.append(revision)
            return seen

        answers = in_threads(THREADS, caller)
        for entity in range(entities):
            callers = answers[entity::entities]
            assert all(seen == sorted(seen) for seen in callers)
            assert sorted(revision for seen in callers for revision in seen) == [*range(1, len(callers) * ROUNDS + 1)]


def test_a_thread_that_stays_away_holds_nobody_up(store: Store) -> None:
    with engine(store) as bank:
        first, last = threading.Barrier(THREADS, timeout=60), threading.Barrier(THREADS, timeout=60)

        def caller(number: int) -> tuple[Balance, int]:
            account = bank.get(Account, f"a-{number}")
            first.wait()
            for _ in range(1 if number % 2 else ROUNDS):
                account.send(Deposit(1))
            last.wait()
            return account.state()

        answers = in_threads(THREADS, caller)
        assert answers == [(Balance(n), n) for _ in range(THREADS // 2) for n in (ROUNDS, 1)]


def test_exceptions_are_themselves(store: Store) -> None:
    failure = KeyError("no")

    def refuse(_: Account) -> None:
        raise failure

    with engine(store) as bank:
        account = bank.get(Account, "a")
        account.send(Deposit(1))
        with pytest.raises(KeyError) as raised:
            account.send(Do(refuse))
        assert raised.value is failure
        with pytest.raises(InsufficientFundsError) as refused:
            account.send(Withdraw(2))
        assert (refused.value.asked, refused.value.balance) == (2, 1)
        with pytest.raises(ego.UnhandledCommandError):
            account.send("hello")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="timeout"):
            account.send(Deposit(1), timeout=0)
        with pytest.raises(ego.EntityNotFoundError):
            bank.send_command("nobody", Deposit(1))
        assert account.state() == (Balance(1), 1)


def test_a_late_answer_tells_the_outcome(store: Store) -> None:
    gate = Gate()
    with engine(store) as bank:
        account = bank.get(Account, "a")
        with pytest.raises(ego.CommandTimeoutError) as late:
            account.send(gate.command(), timeout=0.01)
        assert late.value.outcome == "unknown"
        with pytest.raises(ego.CommandTimeoutError) as queued:
            account.send(Deposit(1), timeout=0.01)
        assert queued.value.outcome == "not_run"
        gate.opened.set()
        assert account.state() == (Balance(0), 0)


def test_an_async_handler_runs_on_the_engines_own_loop(store: Store) -> None:
    threads: set[threading.Thread] = set()

    async def work() -> None:
        await asyncio.sleep(0)
        threads.add(threading.current_thread())

    with engine(store) as bank:
        assert in_threads(8, lambda n: bank.get(Account, f"a-{n}").send(Do(lambda _: work()))) == [(Balance(0), 0)] * 8
        (home,) = threads
        assert home.name == "ego bank"
        assert home.is_alive()
    assert not home.is_alive()


def test_whoever_would_wait_for_himself_is_refused(store: Store) -> None:
    with engine(store) as bank:
        account, other = bank.get(Account, "a"), bank.get(Account, "b")
        with pytest.raises(ego.DeadlockError) as deadlock:
            account.send(Do(lambda _: account.send(Deposit(1))))
        assert deadlock.value.chain == ("account/a", "account/a")
        waits: list[Callable[[], object]] = [
            lambda: other.send(Deposit(1)), other.state, bank.stop, lambda: bank.entity(Account("b"))
        ]  # fmt: skip
        for wait in waits:

            def block(_: Account, wait: Callable[[], object] = wait) -> None:
                wait()

            with pytest.raises(ego.EngineNotStartedError, match=r"plain handler.*tell"):
                account.send(Do(block))

        async def wait_in_a_task() -> None:
            other.send(Deposit(1))

        with pytest.raises(ego.EngineNotStartedError, match=r"would block it.*ego\.Engine"):
            account.send(Do(lambda _: wait_in_a_task()))
        for wait in waits:

            async def main(wait: Callable[[], object] = wait) -> None:
                wait()

            with pytest.raises(ego.EngineNotStartedError, match="would block it"):
                asyncio.run(main())
        assert other.send(Deposit(1)) == (Balance(1), 1)


def test_a_handler_tells(store: Store) -> None:
    with engine(store) as bank:
        account, other = bank.get(Account, "a"), bank.get(Account, "b")
        other.tell(Deposit(1))
        account.send(Do(lambda _: other.tell(Deposit(2))))
        bank.stop()
        with bank:
            assert bank.get(Account, "b").state() == (Balance(3), 2)


def test_commands_carry_what_they_do_elsewhere(store: Store) -> None:
    seen: list[dict[str, str]] = []
    with engine(store) as bank:
        account = bank.entity(Account("a"))
        assert account == bank.get(Account, "a")
        assert (account.kind, account.id, repr(account)) == ("account", "a", "<ego.sync.EntityRef account/a>")
        assert account.send(Deposit(1), command_id="one") == (Balance(1), 1)
        assert account.send(Deposit(1), command_id="one") == (Balance(1), 1)
        assert bank.send_command("a", Deposit(1), kind=Account, expected_revision=1) == (Balance(2), 2)
        with pytest.raises(ego.RevisionConflictError):
            account.send(Deposit(1), expected_revision=1)
        account.send(Do(lambda _: seen.append(ego.context().metadata)), metadata={"trace": "t"})
    assert seen == [{"trace": "t"}]


def test_an_engine_stops_while_threads_call(store: Store) -> None:
    bank = engine(store)
    bank.start()
    begun = threading.Barrier(9)

    def caller(number: int) -> int:
        account, answered = bank.get(Account, f"a-{number}"), 0
        with pytest.raises(ego.EngineNotStartedError):
            while True:
                answered = account.send(Deposit(1), timeout=None)[1]
                if answered == 1:
                    begun.wait(60)
        return answered

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(caller, number) for number in range(8)]
        begun.wait(60)
        assert bank.stop().finished
        answered = [call.result(60) for call in calls]
    with bank:
        assert [bank.get(Account, f"a-{number}").state()[1] for number in range(8)] == answered


def test_one_of_several_threads_stops_it(store: Store) -> None:
    bank = engine(store)
    bank.start()

    def stop(_: int) -> bool:
        try:
            return bank.stop().finished
        except ego.EngineNotStartedError:
            return False

    assert sorted(in_threads(8, stop)) == [False] * 7 + [True]


def test_callers_that_wait_too_long_for_a_stop_are_told(store: Store) -> None:
    gate = Gate()
    bank = engine(store)
    bank.start()
    account = bank.get(Account, "a")
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(account.send, gate.command(), timeout=None)
        assert gate.reached.wait(60)
        queued = pool.submit(account.send, Deposit(1), timeout=None)
        while bank.stats()["queued"] == 0:
            pass
        threading.Timer(0.1, gate.opened.set).start()
        report = bank.stop(timeout=0.01)
        assert (report.finished, report.running, report.queued) == (False, 1, 1)
        outcomes: list[str] = []
        for call in (running, queued):
            with pytest.raises(ego.CommandTimeoutError) as late:
                call.result(60)
            outcomes.append(late.value.outcome)
    assert outcomes == ["unknown", "not_run"]


def test_use_before_the_start_and_after_the_stop(store: Store) -> None:
    bank = engine(store)
    for _ in range(2):
        for use in (lambda: bank.get(Account, "a"), bank.stats, bank.stop, lambda: bank.entity(Account("a"))):
            with pytest.raises(ego.EngineNotStartedError):
                use()
        with bank:
            account = bank.get(Account, "a")
            with pytest.raises(ego.EgoError, match="cannot be started"):
                bank.start()
            assert account.send(Look()) == (Balance(0), 0)
        for call in (account.send, account.tell):
            with pytest.raises(ego.EngineNotStartedError):
                call(Deposit(1))
        with pytest.raises(ego.EngineNotStartedError):
            account.state()


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    with engine(ego.LogStore(tmp_path / "bank.ego")):
        second = engine(ego.LogStore(tmp_path / "bank.ego"))
        with pytest.raises(ego.StoreLockedError) as locked:
            second.start()
        assert locked.value.pid == os.getpid()
        assert not second.started
    with second:
        assert second.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)
    assert threading.active_count() == before


def test_a_handler_that_ends_the_loop_stops_the_engine(store: Store) -> None:
    failure = SystemExit("enough")

    async def end() -> None:
        raise failure

    bank = engine(store)
    bank.start()
    account = bank.get(Account, "a")
    account.send(Deposit(1))
    with pytest.raises(SystemExit) as ended:
        account.send(Do(lambda _: end()))
    assert ended.value is failure
    with pytest.raises(SystemExit) as stopped:
        bank.stop()
    assert stopped.value is failure
    with bank:
        assert bank.get(Account, "a").state() == (Balance(1), 1)


def test_an_engine_that_nobody_holds_ends_its_thread(store: Store) -> None:
    bank = engine(store)
    bank.start()
    bank.get(Account, "a").send(Deposit(1))
    (home,) = (thread for thread in threading.enumerate() if thread.name == "ego bank")
    with pytest.warns(ResourceWarning, match=r"<ego\.sync\.Engine 'bank' started> was not stopped"):
        del bank
    home.join(60)
    assert not home.is_alive()
    with engine(store) as again:
        assert again.get(Account, "a").state() == (Balance(1), 1)


PRELUDE = """
import asyncio, os, signal, sys, threading
import ego, ego.sync
from egotest.bank import Account, Balance, Deposit, Do

signal.signal(signal.SIGINT, signal.default_int_handler)
store = ego.LogStore(sys.argv[1]) if sys.argv[1] else ego.MemoryStore()
bank = ego.sync.Engine("bank", store, behaviors=[Account])
"""


@pytest.fixture(params=["memory", "log"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "" if request.param == "memory" else str(tmp_path / "bank.ego")


def python(code: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", PRELUDE + code, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(LIBRARY)},
    )


def test_ctrl_c_interrupts_a_caller_that_waits(path: str) -> None:
    done = python(
        """
async def forever():
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
    await opened.wait()

async def open_it():
    opened.set()

opened = asyncio.Event()
with bank:
    account = bank.get(Account, "a")
    try:
        account.send(Do(lambda _: forever()), timeout=None)
    except KeyboardInterrupt:
        print("interrupted")
    account.tell(Do(lambda _: print("next")))
    bank.get(Account, "b").send(Do(lambda _: open_it()))
    print(account.state())
""",
        path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\nnext\n(Balance(amount=0), 0)\n", "")


def test_the_interpreter_ends_without_a_stop(path: str) -> None:
    code = """
async def forever():
    reached.set()
    await asyncio.Event().wait()

def wait():
    try:
        bank.get(Account, "b").send(Do(lambda _: forever()))
    except asyncio.CancelledError:
        os.write(1, b"let go\\n")

reached = threading.Event()
bank.start()
print(bank.get(Account, "a").send(Deposit(1)), flush=True)
threading.Thread(target=wait, daemon=True).start()
reached.wait()
"""
    done = python(code, path)
    assert done.returncode == 0
    assert done.stdout in ("(Balance(amount=1), 1)\n", "(Balance(amount=1), 1)\nlet go\n")
    assert "ResourceWarning: <ego.sync.Engine 'bank' started> was not stopped" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Fatal" not in done.stderr


def test_other_threads_go_on_while_the_interpreter_waits_for_them(path: str) -> None:
    code = """
def work():
    threading.main_thread().join()
    for _ in range(100):
        answer = bank.get(Account, "a").send(Deposit(1))
    print(answer)

bank.start()
threading.Thread(target=work).start()
"""
    done = python(code, path)
    assert (done.returncode, done.stdout) == (0, "(Balance(amount=100), 100)\n")
    assert "Traceback" not in done.stderr


def test_a_forked_child_is_refused(path: str) -> None:
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
bank.start()
account = bank.get(Account, "a")
account.send(Deposit(1))
child = os.fork()
if child == 0:
    refused = 0
    for use in (lambda: account.send(Deposit(1)), account.state, bank.stats, bank.stop, lambda: bank.get(Account, "a")):
        try:
            use()
        except ego.ForkedStoreError as error:
            refused += error.pid == os.getppid()
    os._exit(refused + bank.started)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(account.send(Deposit(1)))
bank.stop()
"""
    done = python(code, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n(Balance(amount=2), 2)\n", "")


def test_many_starts_and_stops_leave_no_thread_and_no_descriptor(path: str) -> None:
    code = """
def open_things():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

before = open_things()
for n in range(1, 21):
    with bank:
        assert bank.get(Account, "a").send(Deposit(1))[1] == n
        assert open_things() > before
while open_things() != before:        # a thread that was waited for is gone a moment later
    pass
print("as before")
"""
    done = python(code, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "as before\n", "")


def test_it_is_there_once_somebody_asks_for_it(path: str) -> None:
    code = """
import subprocess
later = "import sys, ego; before = 'ego.sync' in sys.modules; ego.sync.Engine; print(before)"
print(subprocess.run([sys.executable, "-c", later], capture_output=True, text=True).stdout, end="")
try:
    ego.nothing
except AttributeError as error:
    print(error)
"""
    assert python(code, path).stdout == "False\nmodule 'ego' has no attribute 'nothing'\n"


def test_a_child_that_was_forked_among_blocked_threads_can_start_an_engine(tmp_path: Path) -> None:
    done = python(
        """
from pathlib import Path
folder = Path(sys.argv[1]).parent
bank = ego.sync.Engine("bank", ego.LogStore(folder / "parent"), behaviors=[Account])
bank.start()

def hammer(number):
    account = bank.get(Account, f"a-{number}")
    while True:
        account.send(Deposit(1))

for number in range(16):
    threading.Thread(target=hammer, args=(number,), daemon=True).start()
for number in range(5):
    bank.get(Account, "a").send(Deposit(1))
    child = os.fork()
    if child == 0:
        own = ego.sync.Engine("child", ego.LogStore(folder / f"child-{number}"), behaviors=[Account])
        own.start()
        for _ in range(3):
            own.get(Account, "z").send(Deposit(1), timeout=20.0)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
""",
        str(tmp_path / "unused"),
    )
    assert (done.returncode, done.stdout) == (0, "0\n" * 5)


def test_a_projection_is_looked_after_from_a_thread(tmp_path: Path) -> None:
    seen, refused = list[int](), list[int]()

    def handle(envelope: ego.EventEnvelope[Deposited]) -> None:
        amount = envelope.event.amount
        if amount == 13 and not refused:
            refused.append(amount)
            raise ValueError("thirteen")
        seen.append(amount)

    with ego.sync.Engine("bank", ego.LogStore(tmp_path / "bank"), behaviors=[Account]) as engine:
        engine.add_projection("seen", handle, policy=ego.Skip())
        for amount in (1, 13, 2):
            _, revision = engine.get(Account, "a").send(Deposit(amount))
        projection = engine.projection("seen")
        projection.wait_for(engine.get(Account, "a"), revision)
        [letter] = projection.dead_letters()
        assert projection.envelope(letter).event == Deposited(13)
        assert projection.retry() == 1
        assert (sorted(seen), projection.dead_letters(), projection.status().state) == ([1, 2, 13], [], "running")
        assert engine.is_projection_running("seen")
        engine.remove_projection("seen")
        assert not engine.is_projection_running("seen")
