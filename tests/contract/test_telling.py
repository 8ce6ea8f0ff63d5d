"""`tell`, and what a handler knows about itself."""

import datetime
import logging
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, Look, Withdraw
from egotest.running import Run, turns

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account])


def test_tell_runs_without_an_answer(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            account.tell(Deposit(5))
            assert await account.state() == (Balance(5), 1)

    run(main())


def test_a_told_command_that_fails_is_logged(store: Store, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            account.tell(Withdraw(5))
            assert await account.state() == (Balance(0), 0)
            await turns()

    with caplog.at_level(logging.WARNING, logger="ego"):
        run(main())
    assert [record.name for record in caplog.records] == ["ego"]
    assert "account/a" in caplog.text
    assert "InsufficientFundsError" in caplog.text


def test_what_a_handler_tells_is_dropped_with_a_refusal(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            other = bank.get(Account, "b")

            def tell_and_refuse(_account: Account) -> None:
                other.tell(Deposit(1))
                raise ValueError("no")

            def tell_and_accept(_account: Account) -> Deposited:
                other.tell(Deposit(2))
                return Deposited(1)

            account = bank.get(Account, "a")
            with pytest.raises(ValueError, match="no"):
                await account.send(Do(tell_and_refuse))
            assert await account.send(Do(tell_and_accept)) == (Balance(1), 1)
            await turns()
            assert await other.state() == (Balance(2), 1)

    run(main())


def test_what_a_handler_without_events_tells_is_sent(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            other = bank.get(Account, "b")
            await bank.get(Account, "a").send(Do(lambda _: other.tell(Deposit(2))))
            await turns()
            assert await other.state() == (Balance(2), 1)

    run(main())


def test_a_handler_knows_where_it_is(store: Store, run: Run) -> None:
    seen: list[ego.Context] = []

    def look(_account: Account) -> Deposited:
        seen.append(ego.context())
        return Deposited(1)

    async def look_later(_account: Account) -> None:
        seen.append(ego.context())
        await turns()
        seen.append(ego.context())

    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Do(look))
            await account.send(Do(look_later))
            with pytest.raises(LookupError, match="inside a handler"):
                ego.context()

    before = datetime.datetime.now(datetime.UTC)
    run(main())
    assert [(each.kind, each.entity_id, each.revision) for each in seen] == [
        ("account", "a", 0),
        ("account", "a", 1),
        ("account", "a", 1),
    ]
    now = seen[0].now()
    assert now.tzinfo is datetime.UTC
    second = datetime.timedelta(seconds=1)
    assert before - second <= now <= datetime.datetime.now(datetime.UTC) + second


def test_the_context_is_one_handlers_alone(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            ids: list[str] = []

            async def both(_account: Account) -> None:
                await bank.get(Account, "b").send(Do(lambda _: ids.append(ego.context().entity_id)))
                ids.append(ego.context().entity_id)

            await bank.get(Account, "a").send(Do(both))
            assert ids == ["b", "a"]

    run(main())


def test_the_context_cannot_be_changed(store: Store, run: Run) -> None:
    def change(_account: Account) -> None:
        context: Any = ego.context()
        context.revision = 7

    async def main() -> None:
        async with engine(store) as bank:
            with pytest.raises(AttributeError):
                await bank.get(Account, "a").send(Do(change))
            assert await bank.get(Account, "a").send(Look()) == (Balance(0), 0)

    run(main())


async def deposited(amount: int) -> Deposited:
    return Deposited(amount)


@pytest.mark.parametrize("target", ["a", "b"])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("coroutine", [False, True])
def test_what_is_told_to_an_async_handler_runs(
    store: Store, run: Run, target: str, live: bool, coroutine: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            other = bank.get(Account, target)
            if live:
                await other.send(Look())

            def tell(_: Account) -> Any:
                other.tell(Do(lambda _: deposited(7)))
                return deposited(1) if coroutine else Deposited(1)

            await bank.get(Account, "a").send(Do(tell))
            for _ in range(1_000):
                if (await other.state())[0].amount >= 7:
                    break
                await turns()
            assert await other.send(Deposit(1)) == (Balance(9 if target == "a" else 8), 3 if target == "a" else 2)
            assert (await bank.stop()).finished

    with caplog.at_level(logging.WARNING, logger="ego"):
        run(main())
    assert not caplog.records
