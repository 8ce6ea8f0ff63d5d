"""A store that does what the test asks for: fails, refuses, is slow, loses an answer."""

import asyncio
import errno
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Withdraw
from egotest.running import Run, turns

import ego
from ego.testing import ArrangementError, Engine, Faults, FaultyStore

Store = ego.LogStore | ego.MemoryStore


def test_a_failed_write_stores_nothing_and_poisons_until_a_restart(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Account], store=store, faults=faults) as bank:
            account, other = bank.get(Account, "a"), bank.get(Account, "b")
            assert await account.send(Deposit(100)) == (Balance(100), 1)
            faults.fail("append")
            in_flight = [account.send(Deposit(1)), account.send(Deposit(2)), account.send(Withdraw(10_000))]
            answers = await asyncio.gather(*in_flight, return_exceptions=True)
            assert isinstance(answers[0], ego.OutcomeUnknownError)
            assert all(isinstance(each, ego.OutcomeUnknownError | ego.StorePoisonedError) for each in answers)
            with pytest.raises(ego.StorePoisonedError):
                await other.send(Deposit(1))
            assert await account.state() == (Balance(100), 1)
            report = await bank.restart()
            assert isinstance(report.failure, ego.StorePoisonedError)
            assert await account.state() == (Balance(100), 1)
            assert await account.send(Deposit(1)) == (Balance(101), 2)
        assert faults.unused() == []

    run(main())


def test_a_lost_answer_is_found_after_a_restart(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Account], store=store, faults=faults) as bank:
            account = bank.get(Account, "a")
            faults.lose_answer("append")
            with pytest.raises(ego.OutcomeUnknownError, match="answer was lost"):
                await account.send(Deposit(5))
            with pytest.raises(ego.StorePoisonedError):
                await account.send(Deposit(5))
            await bank.restart()
            assert await account.send(Deposit(1)) == (Balance(6), 2)

    run(main())


def test_a_refused_write_is_undone_and_work_goes_on(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Account], store=store, faults=faults) as bank:
            account, other = bank.get(Account, "a"), bank.get(Account, "b")
            faults.refuse("append", entity=(Account, "a"), times=2)
            assert await other.send(Deposit(1)) == (Balance(1), 1)
            for _ in range(2):
                with pytest.raises(ego.StoreFullError):
                    await account.send(Deposit(5))
            assert await account.send(Deposit(7)) == (Balance(7), 1)
            assert (await bank.restart()).finished
            assert await account.state() == (Balance(7), 1)

    run(main())


def test_a_held_write_is_shown_to_nobody_until_it_is_released(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Account], store=store, faults=faults) as bank:
            account = bank.get(Account, "a")
            with faults.hold("append") as held:
                first = asyncio.ensure_future(account.send(Deposit(5)))
                await held.reached()
                behind = [asyncio.ensure_future(each) for each in (account.send(Deposit(1)), account.state())]
                settled = asyncio.ensure_future(bank.settled())
                await turns()
                assert not any(each.done() for each in (first, settled, *behind))
                assert bank.stats()["pending"] == 2
            assert await first == (Balance(5), 1)
            assert [await each for each in behind] == [(Balance(6), 2)] * 2
            await settled
            assert bank.stats()["pending"] == 0

    run(main())


def test_what_counts_on_a_refused_write_is_refused_with_it(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Account], store=store, faults=faults) as bank:
            account, other = bank.get(Account, "a"), bank.get(Account, "b")
            await account.send(Deposit(100))
            with faults.hold("append", entity=(Account, "b")) as held:
                first = other.send(Deposit(1))
                await held.reached()
                faults.refuse("append", entity=("account", "a"))
                answers = [account.send(each) for each in (Deposit(1), Deposit(2), Withdraw(10_000))]
            assert await first == (Balance(1), 1)
            refusals = await asyncio.gather(*answers, return_exceptions=True)
            assert [type(each) for each in refusals] == [ego.StoreFullError] * 3
            assert await account.send(Deposit(3)) == (Balance(103), 2)

    run(main())


def test_a_failed_read_is_told_and_can_be_tried_again(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Account], store=store, faults=faults) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(5))
            await bank.restart()
            faults.fail("read", OSError(errno.EACCES, "no"), entity=(Account, "a"))
            with pytest.raises(ego.StorageError) as caught:
                await account.send(Deposit(1))
            assert getattr(caught.value, "errno", None) == errno.EACCES
            assert await account.send(Deposit(1)) == (Balance(6), 2)

    run(main())


def test_faults_that_did_not_happen_are_told() -> None:
    faults = Faults()
    faults.refuse("append", times=3, entity=(Account, "a"))
    faults.fail("read", times=None)
    with faults.hold("append"):
        pass
    assert faults.unused() == ["refuse append of account/a 3 times", "fail read always", "hold append"]


def test_a_fault_that_cannot_be_is_an_arrangement_mistake() -> None:
    faults: Any = Faults()
    with pytest.raises(ArrangementError, match="not 'close'"):
        faults.fail("close")
    with pytest.raises(ArrangementError, match="a read can only fail"):
        faults.refuse("read")
    with pytest.raises(ArrangementError, match="not 0"):
        faults.hold("append", times=0)
    with pytest.raises(ArrangementError, match="no errno"):
        faults.fail("append", OSError("no number"))
    assert faults.unused() == []


def test_a_store_under_faults_serves_one_engine_at_a_time(store: Store, run: Run) -> None:
    async def main() -> None:
        async with Engine([Account], store=store, faults=Faults()):
            with pytest.raises(ego.ConfigError, match="in use"):
                await Engine([Account], store=store).start()
        async with Engine([Account], store=store) as bank:
            assert await bank.get(Account, "a").state() == (Balance(0), 0)

    run(main())


class Rename(ego.Command):
    name: str


class Profile(ego.State):
    name: str = ""


class Member(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: Rename, version: int, state: Profile) -> tuple[Profile, int]:
        return Profile(command.name), version + 1


def test_a_store_without_states_is_refused_for_durable_states(store: Store, run: Run) -> None:
    async def main() -> None:
        events_alone = FaultyStore(store, Faults(), keeps_states=False)
        async with ego.Engine("bank", events_alone, behaviors=[Account]) as bank:
            with pytest.raises(ego.DurableStateStoreRequiredError, match="FaultyStore"):
                await bank.durable_state_entity(Member("m"))
            with pytest.raises(ego.DurableStateStoreRequiredError) as caught:
                bank.get(Member, "m")
            assert (caught.value.kind, caught.value.entity_id) == ("Member", "m")
            assert await bank.get(Account, "a").send(Deposit(5)) == (Balance(5), 1)
        async with ego.Engine("bank", events_alone, state_store=ego.MemoryStore()) as bank:
            member = await bank.durable_state_entity(Member("m"))
            assert await member.send(Rename("Ada")) == (Profile("Ada"), 1)

    run(main())


def test_a_durable_state_is_what_the_store_holds_after_any_trouble(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = Faults()
        async with Engine([Member], store=store, faults=faults) as members:
            member = members.get(Member, "m")
            await member.send(Rename("Ada"))
            faults.refuse("append")
            with pytest.raises(ego.StoreFullError):
                await member.send(Rename("Bea"))
            assert await member.state() == (Profile("Ada"), 1)
            faults.fail("append")
            with pytest.raises(ego.OutcomeUnknownError):
                await member.send(Rename("Cleo"))
            assert await member.state() == (Profile("Ada"), 1)
            await members.restart()
            faults.lose_answer("append")
            with pytest.raises(ego.OutcomeUnknownError):
                await member.send(Rename("Dora"))
            await members.restart()
            assert await member.send(Rename("Eva")) == (Profile("Eva"), 3)

    run(main())
