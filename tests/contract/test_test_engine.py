"""The engine of the test kit: a clock that is moved, restarts, and waiting for what happens."""

import asyncio
import contextlib
import gc
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import ref

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, Look
from egotest.running import Run, turns

import ego
from ego.testing import ArrangementError, Clock, Engine, Faults, Gate, _waiting

Store = ego.LogStore | ego.MemoryStore


def through(gate: Gate, *events: Deposited) -> Do:
    async def handler(_account: Account) -> list[Deposited]:
        await gate.passed()
        return [*events]

    return Do(handler)


def test_deadlines_are_those_of_the_clock(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with Engine([Account], store=store, clock=clock) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            running = asyncio.ensure_future(account.send(through(gate, Deposited(1)), timeout=60))
            queued = asyncio.ensure_future(account.send(Deposit(10), timeout=20))
            patient = asyncio.ensure_future(account.send(Deposit(100), timeout=None))
            await gate.reached()
            await bank.until_queued(account, 2)
            clock.advance(19.999)
            await turns()
            assert not queued.done()
            clock.advance(0.001)
            with pytest.raises(ego.CommandTimeoutError) as caught:
                await queued
            assert caught.value.outcome == "not_run"
            assert not running.done()
            clock.advance(3600)
            with pytest.raises(ego.CommandTimeoutError) as caught:
                await running
            assert caught.value.outcome == "unknown"
            gate.open()
            assert await patient == (Balance(101), 2)

    run(main())


def test_a_write_that_takes_too_long_by_the_clock_is_too_late(store: Store, run: Run) -> None:
    async def main() -> None:
        clock, faults = Clock(), Faults()
        async with Engine([Account], store=store, clock=clock, faults=faults) as bank:
            account = bank.get(Account, "a")
            with faults.hold("append") as held:
                late = account.send(Deposit(5))
                await held.reached()
                clock.advance(5)
                with pytest.raises(ego.CommandTimeoutError) as caught:
                    await late
            assert caught.value.outcome == "unknown"
            assert await account.state() == (Balance(5), 1)

    run(main())


def test_an_idle_entity_leaves_when_the_clock_says_so(store: Store, run: Run) -> None:
    async def main() -> None:
        clock, faults = Clock(), Faults()
        kind = ego.Kind(Account, passivate_after=60.0)
        async with Engine([kind], store=store, clock=clock, faults=faults) as bank:
            account = bank.get(Account, "a")
            with faults.hold("append") as held:
                slow = asyncio.ensure_future(account.send(Deposit(5), timeout=None))
                await held.reached()
                clock.advance(3600)
                assert bank.is_resident(Account, "a")
            assert await slow == (Balance(5), 1)
            clock.advance(3600)
            await bank.until_passivated(account)
            assert await account.send(Deposit(5)) == (Balance(10), 2)

    run(main())


def test_handlers_see_the_time_of_the_clock(store: Store, run: Run) -> None:
    async def main() -> None:
        clock, seen = Clock(), list[datetime]()

        def look(_account: Account) -> None:
            seen.append(ego.context().now())

        async with Engine([Account], store=store, clock=clock) as bank:
            account = bank.get(Account, "a")
            await account.send(Do(look))
            clock.advance(1.5)
            await account.send(Do(look))
        assert seen == [datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)]
        assert clock.now() == seen[-1]
        assert clock.now().utcoffset() == timedelta(0)

    run(main())


def test_a_command_id_is_remembered_as_long_as_the_clock_says(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        kind = ego.Kind(Account, keep_command_ids_for=3600.0)
        async with Engine([kind], store=store, clock=clock) as bank:
            account = bank.get(Account, "a")
            assert await account.send(Deposit(5), command_id="one") == (Balance(5), 1)
            clock.advance(3599)
            assert await account.send(Deposit(5), command_id="one") == (Balance(5), 1)
            await bank.restart()
            assert await account.send(Deposit(5), command_id="one") == (Balance(5), 1)
            clock.advance(2)
            assert await account.send(Deposit(5), command_id="one") == (Balance(10), 2)

    run(main())


def test_a_clock_does_not_keep_its_engines(run: Run) -> None:
    clock = Clock()

    async def main() -> Any:
        async with Engine([Account], clock=clock) as bank:
            await bank.get(Account, "a").send(Deposit(5))
        return ref(bank)

    gone = run(main())
    gc.collect()
    assert gone() is None
    clock.advance(1)


def test_a_clock_that_is_moved_elsewhere_reaches_its_engines(run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with Engine([Account], clock=clock) as bank:
            gate = Gate()
            late = asyncio.ensure_future(bank.get(Account, "a").send(through(gate), timeout=5))
            await gate.reached()
            await asyncio.to_thread(clock.advance, 5)
            with pytest.raises(ego.CommandTimeoutError):
                await late
            gate.open()

    run(main())


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_clock_moves_forward_alone(seconds: float) -> None:
    with pytest.raises(ArrangementError):
        Clock().advance(seconds)


def test_references_outlive_a_restart(store: Store, run: Run) -> None:
    async def main() -> None:
        async with Engine([Account], store=store) as bank:
            account = bank.get(Account, "a")
            assert await account.send(Deposit(5)) == (Balance(5), 1)
            assert (await bank.restart()).finished
            assert not bank.is_resident(Account, "a")
            assert await account.send(Deposit(5)) == (Balance(10), 2)

    run(main())


def test_settled_waits_for_handlers_and_what_they_told(store: Store, run: Run) -> None:
    async def main() -> None:
        async with Engine([Account], store=store) as bank:
            account, gate = bank.get(Account, "a"), Gate()

            async def handler(_account: Account) -> None:
                await gate.passed()
                bank.get(Account, "b").tell(Deposit(5))

            account.tell(Do(handler))
            settled = asyncio.ensure_future(bank.settled())
            await gate.reached()
            await turns()
            assert not settled.done()
            gate.open()
            await settled
            assert await bank.get(Account, "b").state() == (Balance(5), 1)

    run(main())


def test_waiting_in_vain_says_for_what(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_waiting, "GUARD", 0.01)

    async def main() -> None:
        async with Engine([Account]) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            await account.send(Look())
            with pytest.raises(AssertionError, match="2 commands to wait for account/a"):
                await bank.until_queued(account, 2)
            with pytest.raises(AssertionError, match="account/a to leave the memory"):
                await bank.until_passivated(account)
            with pytest.raises(AssertionError, match="a handler to reach the gate"):
                await gate.reached()
            with Faults().hold("append") as held, pytest.raises(AssertionError, match="a write to be held"):
                await held.reached()
            stuck = asyncio.ensure_future(account.send(through(gate), timeout=None))
            with pytest.raises(AssertionError, match="to finish all commands"):
                await bank.settled()
            gate.open()
            with contextlib.suppress(ego.CommandTimeoutError):
                await stuck

    run(main())
