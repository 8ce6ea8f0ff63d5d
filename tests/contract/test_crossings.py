"""Threads, deadlines and stops that cross each other's way."""

import asyncio
import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do
from egotest.people import Person, Rename
from egotest.running import Run, turns

import ego
import ego.sync

Store = ego.LogStore | ego.MemoryStore

LONG_ENOUGH = 10.0
"""Seconds after which a test that would hang goes on, and fails."""


@pytest.fixture
def busy_interpreter() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_whoever_waits_for_a_thread_is_told_when_it_is_too_late(store: Store) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def stay(_: Account) -> Deposited:
        inside.set()
        go_on.wait()
        return Deposited(1)

    with ego.sync.Engine("bank", store, behaviors=[Account]) as bank:
        account = bank.get(Account, "a")
        holder = threading.Thread(target=lambda: account.send(Do(stay), timeout=None))
        holder.start()
        inside.wait()
        guard = threading.Timer(LONG_ENOUGH, go_on.set)
        guard.start()
        with pytest.raises(ego.CommandTimeoutError) as late:
            account.send(Deposit(1), timeout=0.05)
        assert late.value.outcome == "not_run"
        guard.cancel()
        go_on.set()
        holder.join()
        assert account.state() == (Balance(1), 1)


def test_deadlines_hold_in_a_line_that_is_longer_than_a_round_of_the_loop(store: Store, run: Run) -> None:
    def slowly(_: Account) -> Deposited:
        time.sleep(0.005)
        return Deposited(1)

    async def main() -> None:
        gate = asyncio.Event()

        async def open_first(_: Account) -> None:
            await gate.wait()

        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            account = bank.get(Account, "a")
            await account.state()
            first = account.send(Do(lambda behavior: open_first(behavior)), timeout=None)
            outcomes: Counter[str] = Counter()

            async def one() -> None:
                try:
                    await account.send(Do(slowly), timeout=0.4)
                    outcomes["ok"] += 1
                except ego.CommandTimeoutError as late:
                    outcomes[late.outcome] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(400):
                    group.create_task(one())
                await asyncio.sleep(0)
                gate.set()
            await first
            # 400 take two seconds; a round of 64 is not interrupted.
            assert outcomes["not_run"] >= 100
            _, revision = await account.state()
            assert outcomes["ok"] <= revision <= 400 - outcomes["not_run"]

    run(main())


@pytest.mark.usefixtures("busy_interpreter")
def test_threads_that_meet_a_kind_first_share_one_entity() -> None:
    for _ in range(20):
        with ego.sync.Engine("bank", ego.MemoryStore()) as bank:
            ready, failures = threading.Barrier(4), list[BaseException]()

            def work(
                bank: ego.sync.Engine = bank,
                ready: threading.Barrier = ready,
                failures: list[BaseException] = failures,
            ) -> None:
                try:
                    ready.wait()
                    account = bank.get(Account, "a")
                    for _ in range(20):
                        account.send(Deposit(1))
                except BaseException as failure:
                    failures.append(failure)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert bank.get(Account, "a").state() == (Balance(80), 80)


def test_a_thread_that_outlives_a_stop_is_told_and_stores_nothing(store: Store) -> None:
    inside, go_on, told = threading.Event(), threading.Event(), list[BaseException]()

    def stay(_: Account) -> Deposited:
        inside.set()
        go_on.wait()
        return Deposited(1)

    bank = ego.sync.Engine("bank", store, behaviors=[Account])
    bank.start()
    account = bank.get(Account, "a")
    account.send(Deposit(1))

    def work() -> None:
        try:
            account.send(Do(stay), timeout=5.0)
        except ego.EngineNotStartedError as failure:
            told.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    report = bank.stop(timeout=0.05)
    assert (report.finished, report.running) == (False, 1)
    bank.start()
    go_on.set()
    thread.join(LONG_ENOUGH)
    assert len(told) == 1
    assert account.state() == (Balance(1), 1)
    assert account.send(Deposit(1)) == (Balance(2), 2)
    assert bank.stop().finished


def test_a_cancelled_stop_closes_both_stores(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        events, states = ego.LogStore(tmp_path / "events"), ego.LogStore(tmp_path / "states")
        engine = ego.Engine("shop", events, state_store=states, behaviors=[Account, Person])
        await engine.start()
        ada = engine.get(Person, "ada")
        await ada.send(Rename("Ada"))
        stopping = asyncio.create_task(engine.stop())
        await turns(2)
        stopping.cancel()
        await asyncio.wait([stopping])
        while not engine.started:
            try:
                await engine.start()
            except ego.ConfigError:
                # The thread that closes a store lets go of it a moment later.
                await asyncio.to_thread(time.sleep, 0.01)
        assert (await ada.state())[1] == 1
        await engine.stop()

    run(main())


@pytest.mark.usefixtures("busy_interpreter")
def test_threads_that_try_again_and_again_disturb_no_start() -> None:
    bank = ego.sync.Engine("bank", ego.MemoryStore(), behaviors=[Account])
    bank.start()
    account, over = bank.get(Account, "a"), threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(ego.EngineNotStartedError):
                account.send(Deposit(1))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert bank.stop().failure is None
            bank.start()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        bank.stop()
