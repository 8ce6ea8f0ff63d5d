"""A command becomes events, a state and a revision."""

import asyncio

import pytest
from egotest.bank import (
    Account,
    Balance,
    Deposit,
    Deposited,
    Do,
    InsufficientFundsError,
    Look,
    Split,
    Withdraw,
    Withdrawn,
)
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account])


def test_a_command_answers_with_state_and_revision(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            assert (account.id, account.kind) == ("a", "account")
            assert await account.send(Deposit(5)) == (Balance(5), 1)
            assert await account.send(Withdraw(2)) == (Balance(3), 2)
            assert await account.state() == (Balance(3), 2)

    run(main())


@pytest.mark.parametrize("as_list", [True, False])
def test_several_events_are_one_step(store: Store, run: Run, as_list: bool) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            assert await bank.get(Account, "a").send(Split((1, 2, 3), as_list)) == (Balance(6), 3)

    run(main())


@pytest.mark.parametrize("empty_list", [True, False])
def test_no_event_gives_the_state_and_revision_unchanged(store: Store, run: Run, empty_list: bool) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            assert await account.send(Look(empty_list)) == (Balance(0), 0)
            await account.send(Deposit(5))
            before, _ = await account.state()
            state, revision = await account.send(Look(empty_list))
            assert (state, revision) == (Balance(5), 1)
            assert state is before

    run(main())


def test_entities_of_one_kind_are_apart(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await bank.get(Account, "a").send(Deposit(5))
            await bank.get(Account, "b").send(Deposit(7))
            assert await bank.get(Account, "a").state() == (Balance(5), 1)
            assert await bank.get(Account, "b").state() == (Balance(7), 1)
            assert await bank.get(Account, "c").state() == (Balance(0), 0)

    run(main())


def test_a_refusal_reaches_the_caller_as_itself_and_changes_nothing(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(5))
            with pytest.raises(InsufficientFundsError) as caught:
                await account.send(Withdraw(9))
            assert type(caught.value) is InsufficientFundsError
            assert (caught.value.asked, caught.value.balance) == (9, 5)
            assert caught.traceback[-1].name == "handle_command"
            assert await account.send(Look()) == (Balance(5), 1)
            assert await account.send(Withdraw(5)) == (Balance(0), 2)

    run(main())


def test_the_exception_object_itself_is_raised(store: Store, run: Run) -> None:
    error = InsufficientFundsError(1, 0)

    def refuse(_account: Account) -> None:
        raise error

    async def main() -> None:
        async with engine(store) as bank:
            with pytest.raises(InsufficientFundsError) as caught:
                await bank.get(Account, "a").send(Do(refuse))
            assert caught.value is error

    run(main())


def test_a_failing_second_event_takes_the_first_with_it(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(5))
            with pytest.raises(Exception, match=r"^$") as caught:
                await account.send(Do(lambda _: [Deposited(1), Withdrawn(100)]))
            assert type(caught.value).__name__ == "OverdrawnError"
            assert await account.state() == (Balance(5), 1)
            assert await account.send(Deposit(1)) == (Balance(6), 2)

    run(main())
    assert run(reread(store)) == (Balance(6), 2)


async def reread(store: Store) -> tuple[Balance, int]:
    async with engine(store) as bank:
        return await bank.get(Account, "a").state()


def test_everything_is_there_after_stop_and_start(store: Store, run: Run) -> None:
    async def first() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            for amount in range(1, 101):
                await account.send(Deposit(amount))
            await account.send(Split((1, 2)))

    run(first())
    assert run(reread(store)) == (Balance(5053), 102)


def test_a_reference_works_again_after_stop_and_start(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        account = bank.get(Account, "a")
        await account.send(Deposit(5))
        await bank.stop()
        with pytest.raises(ego.EngineNotStartedError):
            await account.send(Deposit(5))
        await bank.start()
        assert await account.send(Deposit(5)) == (Balance(10), 2)
        await bank.stop()

    run(main())


def test_a_command_is_accepted_at_the_call(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            answers = [account.send(Deposit(amount)) for amount in (1, 2, 3)]
            assert await account.state() == (Balance(6), 3)
            assert [await each for each in answers] == [(Balance(1), 1), (Balance(3), 2), (Balance(6), 3)]

    run(main())


def test_a_thousand_callers_of_one_entity_see_every_revision_in_order(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            answers = await asyncio.gather(*(account.send(Deposit(1)) for _ in range(1000)))
            assert answers == [(Balance(n), n) for n in range(1, 1001)]

    run(main())


@pytest.mark.parametrize("entities", [2, 10, 1000])
def test_as_many_callers_as_entities_make_progress(store: Store, run: Run, entities: int) -> None:
    """Defect 1 of eGo: two entities with a client each stop each other for ever."""

    async def caller(bank: ego.Engine, number: int) -> tuple[Balance, int]:
        account = bank.get(Account, f"a-{number}")
        for _ in range(9):
            await account.send(Deposit(number))
        return await account.send(Deposit(number))

    async def main() -> None:
        async with engine(store) as bank:
            answers = await asyncio.gather(*(caller(bank, number) for number in range(entities)))
            assert answers == [(Balance(10 * number), 10) for number in range(entities)]

    run(main())


def test_every_caller_gets_the_answer_of_its_own_command(store: Store, run: Run) -> None:
    """Defect 2 of eGo: batching answers the wrong caller, drops acknowledged commands and stores others twice."""

    async def caller(bank: ego.Engine, number: int) -> int:
        account = bank.get(Account, f"a-{number % 7}")
        before, _ = await account.state()
        refused = number % 3 == 0
        try:
            state, _ = await account.send(Withdraw(10**9) if refused else Deposit(number))
        except InsufficientFundsError as error:
            assert refused
            assert error.asked == 10**9
            return 0
        assert not refused
        assert state.amount >= before.amount + number
        return number

    async def main() -> list[int]:
        async with engine(store) as bank:
            return await asyncio.gather(*(caller(bank, number) for number in range(1, 700)))

    async def balances() -> list[tuple[Balance, int]]:
        async with engine(store) as bank:
            return [await bank.get(Account, f"a-{number}").state() for number in range(7)]

    acknowledged = run(main())
    for entity, (state, revision) in enumerate(run(balances())):
        mine = [amount for number, amount in enumerate(acknowledged, 1) if number % 7 == entity and amount]
        assert (state.amount, revision) == (sum(mine), len(mine))
