"""One engine, called from several event loops and threads."""

import asyncio
import threading
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Do, Gate
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore

THREADS = 4
CALLERS = 16
ROUNDS = 10


def engine(store: Store, **options: Any) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account], **options)


def test_loops_of_several_threads_share_one_engine(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            accounts = [bank.get(Account, f"a-{n}") for n in range(3)]
            seen: list[list[tuple[int, int]]] = [[] for _ in accounts]

            async def caller() -> None:
                for _ in range(ROUNDS):
                    for account, answers in zip(accounts, seen, strict=True):
                        balance, revision = await account.send(Deposit(1))
                        answers.append((balance.amount, revision))

            async def callers() -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(CALLERS):
                        group.create_task(caller())

            async with asyncio.TaskGroup() as group:
                group.create_task(callers())
                for _ in range(THREADS):
                    group.create_task(asyncio.to_thread(asyncio.run, callers()))
            total = (THREADS + 1) * CALLERS * ROUNDS
            for account, answers in zip(accounts, seen, strict=True):
                assert sorted(answers) == [(n, n) for n in range(1, total + 1)]
                assert await account.state() == (Balance(total), total)

    run(main())


def test_an_async_handler_runs_on_the_engines_loop_whoever_calls(store: Store, run: Run) -> None:
    async def main() -> None:
        home = asyncio.get_running_loop()
        loops: list[asyncio.AbstractEventLoop] = []

        async def work(_: Account) -> None:
            loops.append(asyncio.get_running_loop())
            await asyncio.sleep(0)

        async with engine(store) as bank:
            account = bank.get(Account, "a")

            async def elsewhere() -> None:
                assert asyncio.get_running_loop() is not home
                for expected in range(1, 4):
                    assert await account.send(Do(work)) == (Balance(expected - 1), expected - 1)
                    assert await account.send(Deposit(1)) == (Balance(expected), expected)

            await asyncio.to_thread(asyncio.run, elsewhere())
            assert loops == [home] * 3

    run(main())


def test_exceptions_and_timeouts_reach_the_other_loop(store: Store, run: Run) -> None:
    async def main() -> None:
        gate = Gate()

        async with engine(store) as bank:
            account = bank.get(Account, "a")

            def refuse(_: Account) -> None:
                raise KeyError("no")

            async def elsewhere() -> None:
                with pytest.raises(KeyError):
                    await account.send(Do(refuse))
                with pytest.raises(ego.CommandTimeoutError) as late:
                    await account.send(gate.command(), timeout=0.01)
                assert late.value.outcome == "unknown"
                with pytest.raises(ego.CommandTimeoutError) as queued:
                    await account.send(Deposit(1), timeout=0.01)
                assert queued.value.outcome == "not_run"
                task = asyncio.create_task(forever())
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

            async def forever() -> None:
                await account.send(Deposit(1), timeout=None)

            await asyncio.to_thread(asyncio.run, elsewhere())
            gate.opened.set()
            assert await account.state() == (Balance(0), 0)

    run(main())


def test_a_thread_without_a_loop_is_told_what_to_use(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            with pytest.raises(ego.EngineNotStartedError, match=r"no event loop runs in this thread.*ego\.sync"):
                _ = await asyncio.to_thread(account.send, Deposit(1))
            assert await account.state() == (Balance(0), 0)

    run(main())


def test_a_thread_without_a_loop_may_tell(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await asyncio.gather(*(asyncio.to_thread(account.tell, Deposit(1)) for _ in range(20)))
            assert await account.state() == (Balance(20), 20)

    run(main())


def test_an_engine_stops_while_other_loops_call(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        account = bank.get(Account, "a")
        answered = 0
        begun = threading.Event()

        async def elsewhere() -> None:
            nonlocal answered
            with pytest.raises(ego.EngineNotStartedError):
                while True:
                    balance, revision = await account.send(Deposit(1))
                    assert balance.amount == revision
                    answered = revision
                    begun.set()

        calling = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        await asyncio.to_thread(begun.wait)
        report = await bank.stop()
        assert report.finished
        await calling
        async with bank:
            assert await account.state() == (Balance(answered), answered)

    run(main())
