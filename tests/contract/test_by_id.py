"""From a name to an entity: `entity`, `send_command` and the kinds that an id may have."""

import pytest
from egotest.bank import Account, AccountEvent, Balance, Deposit, Look
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore


class Savings(Account):
    kind = "savings"


class Rated(Account):
    kind = "rated"

    def __init__(self, entity_id: str, rate: int) -> None:
        super().__init__(entity_id)
        self.rate = rate

    def handle_event(self, event: AccountEvent, state: Balance) -> Balance:
        return Balance(self.rate * super().handle_event(event, state).amount)


def test_a_declared_entity_answers_by_its_id(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store) as bank:
            account = await bank.entity(Account("a"))
            assert (account.id, account.kind) == ("a", "account")
            assert await bank.send_command("a", Deposit(5)) == (Balance(5), 1)
            again = await bank.entity(Account("a"))
            assert await again.state() == (Balance(5), 1)

    run(main())


def test_a_declared_entity_without_events_is_known(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store) as bank:
            await bank.entity(Account("a"))
            assert await bank.send_command("a", Look()) == (Balance(0), 0)
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            with pytest.raises(ego.EntityNotFoundError):
                _ = bank.send_command("a", Look())

    run(main())


def test_a_stored_entity_is_found_after_a_restart(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            await bank.get(Account, "a").send(Deposit(5))
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            assert await bank.send_command("a", Deposit(1)) == (Balance(6), 2)

    run(main())


def test_a_stored_entity_of_an_unregistered_kind_is_said_so(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            await bank.get(Account, "a").send(Deposit(5))
        async with ego.Engine("bank", store, behaviors=[Savings]) as bank:
            with pytest.raises(ego.EntityNotFoundError, match="stored as account"):
                _ = bank.send_command("a", Deposit(1))

    run(main())


def test_an_id_of_two_kinds_needs_the_kind(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account, Savings]) as bank:
            await bank.get(Account, "a").send(Deposit(5))
            await bank.get(Savings, "a").send(Deposit(7))
            with pytest.raises(ego.KindConflictError, match="account, savings") as caught:
                _ = bank.send_command("a", Look())
            assert (caught.value.entity_id, caught.value.kinds) == ("a", ("account", "savings"))
            assert await bank.send_command("a", Look(), kind=Account) == (Balance(5), 1)
            assert await bank.send_command("a", Look(), kind="savings") == (Balance(7), 1)
            with pytest.raises(ego.EntityNotFoundError):
                _ = bank.send_command("b", Look(), kind="savings")

    run(main())


def test_a_kind_that_is_not_registered(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            with pytest.raises(ego.ConfigError, match=r"kind 'loans' is not registered .* it has account"):
                _ = bank.send_command("a", Look(), kind="loans")

    run(main())


def test_a_new_kind_is_registered_by_its_first_use(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store) as bank:
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)
            assert await bank.send_command("a", Look(), kind="account") == (Balance(1), 1)

    run(main())


def test_a_behavior_may_need_more_than_an_id(store: Store, run: Run) -> None:
    async def main() -> None:
        rated = ego.Kind(Rated, create=lambda entity_id: Rated(entity_id, 10))
        async with ego.Engine("bank", store, behaviors=[rated]) as bank:
            assert await bank.get(Rated, "a").send(Deposit(1)) == (Balance(10), 1)
            mine = await bank.entity(Rated("b", 100))
            assert await mine.send(Deposit(1)) == (Balance(100), 1)

    run(main())


def test_create_that_gives_another_entity_is_refused(store: Store, run: Run) -> None:
    async def main() -> None:
        wrong = ego.Kind(Account, create=lambda _: Account("other"))
        async with ego.Engine("bank", store, behaviors=[wrong]) as bank:
            with pytest.raises(ego.HandlerResultError, match="account/a: making it must give a Account with that id"):
                await bank.get(Account, "a").send(Look())

    run(main())
