"""Async handlers, timeouts, cancellation, full mailboxes: what waits for what, and how it ends."""

import asyncio
import contextvars
from collections.abc import Sequence
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, Gate, Look
from egotest.running import Run, turns

import ego
from ego.testing import Faults, FaultyStore

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store, **options: Any) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account], **options)


def test_an_async_handler_holds_its_entity_and_no_other(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            first = account.send(gate.command(Deposited(1), Deposited(2)))
            await gate.reached.wait()
            second = asyncio.ensure_future(account.send(Deposit(10)))
            assert await bank.get(Account, "b").send(Deposit(5)) == (Balance(5), 1)
            await turns()
            assert not second.done()
            gate.opened.set()
            assert await first == (Balance(3), 2)
            assert await second == (Balance(13), 3)

    run(main())


def test_an_async_handler_may_wait_for_a_future(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            future: asyncio.Future[Deposited] = asyncio.get_running_loop().create_future()
            answer = bank.get(Account, "a").send(Do(lambda _: future))
            await turns()
            future.set_result(Deposited(4))
            assert await answer == (Balance(4), 1)

    run(main())


def test_an_async_handler_may_send_to_another_entity(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:

            async def transfer(_account: Account) -> Deposited:
                state, _ = await bank.get(Account, "b").send(Deposit(5))
                return Deposited(state.amount)

            assert await bank.get(Account, "a").send(Do(transfer)) == (Balance(5), 1)

    run(main())


def test_two_entities_that_wait_for_each_other_are_told_at_once(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:

            async def ping(_account: Account) -> None:
                await bank.get(Account, "b").send(Do(pong), timeout=None)

            async def pong(_account: Account) -> None:
                await bank.get(Account, "a").send(Look(), timeout=None)

            with pytest.raises(ego.DeadlockError) as caught:
                await bank.get(Account, "a").send(Do(ping), timeout=None)
            assert set(caught.value.chain) == {"account/a", "account/b"}
            assert isinstance(caught.value, RuntimeError)
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)
            assert await bank.get(Account, "b").send(Deposit(1)) == (Balance(1), 1)

    run(main())


def test_two_entities_that_start_to_wait_for_each_other_are_told_at_once(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            both = asyncio.Barrier(2)

            def call(other: str) -> Do:
                async def wait_then_call(_account: Account) -> None:
                    await both.wait()
                    await bank.get(Account, other).send(Look(), timeout=None)

                return Do(wait_then_call)

            answers: Sequence[Any] = await asyncio.gather(
                bank.get(Account, "a").send(call("b"), timeout=None),
                bank.get(Account, "b").send(call("a"), timeout=None),
                return_exceptions=True,
            )
            assert ego.DeadlockError in [type(each) for each in answers]

    run(main())


def test_who_waits_for_the_disk_alone_is_in_no_circle(store: Store, run: Run) -> None:
    async def main() -> None:
        faults, gate = Faults(), Gate()
        async with ego.Engine("bank", FaultyStore(store, faults), behaviors=[Account]) as bank:
            a, b = bank.get(Account, "a"), bank.get(Account, "b")

            async def ask(_account: Account) -> None:
                await b.send(gate.command(Deposited(1)), timeout=None)

            async def ask_back() -> None:
                await a.send(Look(), timeout=None)

            first = a.send(Do(ask), timeout=None)
            await gate.reached.wait()
            with faults.hold("append", entity=(Account, "b")) as held:

                def release_then_ask_back(_account: Account) -> Any:
                    held.release()
                    return ask_back()

                second = b.send(Do(release_then_ask_back), timeout=None)
                gate.opened.set()
                assert await second == (Balance(1), 1)
                assert await first == (Balance(0), 0)

    run(main())


def test_a_queued_command_that_is_late_never_runs(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            first = account.send(gate.command(Deposited(1)))
            await gate.reached.wait()
            late = account.send(Deposit(10), timeout=0.01)
            with pytest.raises(ego.CommandTimeoutError, match="account/a") as caught:
                await late
            assert (caught.value.outcome, caught.value.entity_id) == ("not_run", "a")
            assert isinstance(caught.value, TimeoutError)
            gate.opened.set()
            assert await first == (Balance(1), 1)
            assert await account.state() == (Balance(1), 1)

    run(main())


def test_a_command_that_is_late_after_it_began_is_finished(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            with pytest.raises(ego.CommandTimeoutError) as caught:
                await account.send(gate.command(Deposited(1)), timeout=0.01)
            assert caught.value.outcome == "unknown"
            gate.opened.set()
            assert await account.state() == (Balance(1), 1)

    run(main())


def test_a_nearer_deadline_behind_a_farther_one_is_kept(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command(), timeout=None)
            await gate.reached.wait()
            patient = asyncio.ensure_future(account.send(Deposit(1), timeout=600))
            for _ in range(3):
                with pytest.raises(ego.CommandTimeoutError):
                    await account.send(Deposit(10), timeout=0.001)
            assert not patient.done()
            gate.opened.set()
            assert await held == (Balance(0), 0)
            assert await patient == (Balance(1), 1)

    run(main())


def test_cancelling_drops_what_has_not_begun(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command())
            await gate.reached.wait()
            task = asyncio.create_task(account.send(Deposit(10)))
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.opened.set()
            assert await held == (Balance(0), 0)
            assert await account.state() == (Balance(0), 0)

    run(main())


def test_cancelling_finishes_what_has_begun(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            task = asyncio.create_task(account.send(gate.command(Deposited(3))))
            await gate.reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.opened.set()
            assert await account.state() == (Balance(3), 1)

    run(main())


def test_a_full_mailbox_refuses_at_once(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store, mailbox_capacity=2) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command())
            await gate.reached.wait()
            queued = [account.send(Deposit(1)), account.send(Deposit(2))]
            for call in (lambda: account.send(Deposit(4)), lambda: account.tell(Deposit(4))):
                with pytest.raises(ego.MailboxFullError, match="account/a") as caught:
                    call()
                assert (caught.value.entity_id, caught.value.capacity) == ("a", 2)
            gate.opened.set()
            assert await held == (Balance(0), 0)
            assert [await each for each in queued] == [(Balance(1), 1), (Balance(3), 2)]
            assert await account.send(Deposit(1)) == (Balance(4), 3)

    run(main())


def test_queued_commands_run_in_their_callers_context(store: Store, run: Run) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    def look(_account: Account) -> None:
        seen.append(user.get())

    async def look_later(_account: Account) -> None:
        seen.append(user.get())

    async def caller(account: ego.EntityRef[Any, Balance], name: str) -> None:
        user.set(name)
        await account.send(Do(look))
        await account.send(Do(look_later))

    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command())
            await gate.reached.wait()
            tasks = [asyncio.create_task(caller(account, name)) for name in ("ann", "bob")]
            await turns()
            gate.opened.set()
            await asyncio.gather(*tasks)
            assert await held == (Balance(0), 0)
            assert sorted(seen) == ["ann", "ann", "bob", "bob"]
            assert user.get() == "nobody"

    run(main())
