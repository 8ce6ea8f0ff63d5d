"""The answer of `send` behaves as any coroutine does, whatever asyncio does with it."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, Gate, InsufficientFundsError, Withdraw
from egotest.running import Run, turns

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account])


def test_every_way_to_wait(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            loop = asyncio.get_running_loop()
            assert await account.send(Deposit(1)) == (Balance(1), 1)
            assert await asyncio.wait_for(account.send(Deposit(1)), 5) == (Balance(2), 2)
            async with asyncio.timeout(5):
                assert await account.send(Deposit(1)) == (Balance(3), 3)
            both: Sequence[Any] = await asyncio.gather(account.send(Deposit(1)), account.send(Deposit(1)))
            assert both == [(Balance(4), 4), (Balance(5), 5)]
            assert await asyncio.create_task(account.send(Deposit(1))) == (Balance(6), 6)
            assert await loop.create_task(account.send(Deposit(1)), name="seven") == (Balance(7), 7)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(account.send(Deposit(1)))
            assert task.result() == (Balance(8), 8)
            assert await asyncio.shield(account.send(Deposit(1))) == (Balance(9), 9)
            assert await asyncio.ensure_future(account.send(Deposit(1))) == (Balance(10), 10)

    run(main())


def test_it_is_a_coroutine(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            answer = bank.get(Account, "a").send(Deposit(1))
            assert isinstance(answer, Coroutine)
            assert await answer == (Balance(1), 1)

    run(main())


def test_a_second_await_gives_the_same_answer(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            answer = bank.get(Account, "a").send(Deposit(1))
            assert await answer == await answer == (Balance(1), 1)
            refusal = bank.get(Account, "a").send(Withdraw(100))
            for _ in range(2):
                with pytest.raises(InsufficientFundsError):
                    await refusal

    run(main())


def test_several_tasks_may_wait_for_one_answer(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            gate = Gate()
            answer = bank.get(Account, "a").send(gate.command())

            async def waiting() -> Any:
                return await answer

            tasks = [asyncio.create_task(waiting()) for _ in range(3)]
            await gate.reached.wait()
            gate.opened.set()
            assert await asyncio.gather(*tasks) == [(Balance(0), 0)] * 3

    run(main())


def test_gather_returns_exceptions(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            answers: Sequence[Any] = await asyncio.gather(
                account.send(Deposit(1)), account.send(Withdraw(9)), account.send(Deposit(1)), return_exceptions=True
            )
            assert answers[0] == (Balance(1), 1)
            assert isinstance(answers[1], InsufficientFundsError)
            assert answers[2] == (Balance(2), 2)

    run(main())


def test_a_failure_in_a_task_group_ends_the_group(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(account.send(Deposit(1)))
                    group.create_task(account.send(Withdraw(9)))
            assert [type(each) for each in caught.value.exceptions] == [InsufficientFundsError]
            assert await account.state() == (Balance(1), 1)

    run(main())


def test_wait_for_that_is_late_cancels(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command())
            await gate.reached.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(account.send(Deposit(1)), 0.01)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await account.send(Deposit(1))
            gate.opened.set()
            assert await held == (Balance(0), 0)
            assert await account.state() == (Balance(0), 0)

    run(main())


def test_shield_keeps_a_command_from_its_callers_cancellation(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command())
            await gate.reached.wait()
            inner = account.send(Deposit(1))

            async def shielded() -> Any:
                return await asyncio.shield(inner)

            task = asyncio.create_task(shielded())
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.opened.set()
            assert await held == (Balance(0), 0)
            assert await account.state() == (Balance(1), 1)

    run(main())


def test_an_answer_that_nobody_awaits_is_no_warning(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            _ = account.send(Deposit(1))
            del _
            gc.collect()
            assert await account.state() == (Balance(1), 1)

    run(main())


def test_an_exception_that_nobody_awaits_is_reported(store: Store, run: Run) -> None:
    async def main() -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            answer = account.send(Withdraw(1))
            await account.state()
            del answer
            gc.collect()
            await turns()
            assert [type(each["exception"]) for each in reports] == [InsufficientFundsError]
            with pytest.raises(InsufficientFundsError):
                await account.send(Withdraw(1))
            gc.collect()
            assert len(reports) == 1

    run(main())


def test_an_exception_in_a_cycle_is_reported_whole(store: Store, run: Run) -> None:
    """The collector takes cycles apart in any order; what it reports is looked at later."""
    reported: list[dict[str, Any]] = []

    def fail(_account: Account) -> None:
        failure = InsufficientFundsError(1, 2)
        failure.itself = failure  # type: ignore[attr-defined]
        raise failure

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with engine(store) as bank:
            gate = Gate()
            held = bank.get(Account, "a").send(gate.command())
            await gate.reached.wait()
            cycle: list[object] = [bank.get(Account, "a").send(Do(fail))]
            cycle.append(cycle)
            gate.opened.set()
            assert await held == (Balance(0), 0)
            await turns()
            del cycle
            gc.collect()

    run(main())
    gc.collect()
    assert [str(context["exception"]) for context in reported] == ["asked for 1, there is 2"]


def test_a_stopped_engine_keeps_nothing_alive(store: Store, run: Run) -> None:
    class Watched:
        pass

    class Holding(Account):
        def __init__(self, entity_id: str) -> None:
            super().__init__(entity_id)
            self.watched = Watched()
            alive.append(weakref.ref(self.watched))
            self.bank = bank

    alive: list[weakref.ref[Watched]] = []
    bank = ego.Engine("bank", store, behaviors=[Holding])

    async def main() -> None:
        async with bank:
            await asyncio.gather(*(bank.get(Holding, f"a-{n}").send(Deposit(n)) for n in range(100)))

    run(main())
    assert len(alive) == 100
    gc.collect()
    assert [each for each in alive if each() is not None] == []


def test_an_engine_that_its_own_behaviors_refer_to_can_be_collected(store: Store, run: Run) -> None:
    async def main() -> weakref.ref[ego.Engine]:
        class Holding(Account):
            def __init__(self, entity_id: str) -> None:
                super().__init__(entity_id)
                self.bank = bank

        bank = ego.Engine("bank", store, behaviors=[Holding])
        async with bank:
            await bank.get(Holding, "a").send(Deposit(1))
        return weakref.ref(bank)

    engine_ref = run(main())
    gc.collect()
    assert engine_ref() is None


def test_a_comparison_that_raises_leaves_the_callbacks_where_they_were(store: Store, run: Run) -> None:
    class Hostile:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = object.__hash__

    async def main() -> None:
        gate = Gate()
        async with engine(store) as bank:
            answer: Any = bank.get(Account, "a").send(gate.command(Deposited(1)))
            called: list[Any] = []
            answer.add_done_callback(called.append)
            with pytest.raises(ZeroDivisionError):
                answer.remove_done_callback(Hostile())
            gate.opened.set()
            assert await answer == (Balance(1), 1)
            await turns()
            assert called == [answer]

    run(main())
