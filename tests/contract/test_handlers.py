"""Whatever a handler raises reaches the caller as itself, whoever waits and however it was run."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from egotest.bank import Account, AccountEvent, Balance, Deposit, Deposited, Do, Gate, Look
from egotest.people import Act, Person, Profile, Rename
from egotest.running import Run, turns

import ego

Store = ego.LogStore | ego.MemoryStore


class Blast(BaseException):
    pass


ERRORS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError("mine"), Blast()]
TERMS: list[dict[str, Any]] = [{}, {"expected_revision": 1, "metadata": {"user": "ann"}}]


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account, Person])


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


async def raised_by(answer: Coroutine[Any, Any, Any]) -> BaseException:
    """What the answer raises, caught before the loop could see it."""
    try:
        await answer
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("terms", TERMS, ids=["plain", "on terms"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_def_handler_that_raises_no_exception_is_answered_with_it(
    store: Store, run: Run, error: BaseException, terms: dict[str, Any]
) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, person = bank.get(Account, "a"), bank.get(Person, "p")
            await account.send(Deposit(5))
            await person.send(Rename("x"))
            assert await raised_by(account.send(Do(raising(error)), timeout=None, **terms)) is error
            assert await raised_by(person.send(Act(raising(error)), timeout=None, **terms)) is error
            assert await account.state() == (Balance(5), 1)
            assert await account.send(Deposit(1)) == (Balance(6), 2)
            assert await person.send(Rename("y")) == (Profile("y"), 2)
            await bank.stop()
            await bank.start()
            assert await account.state() == (Balance(6), 2)

    run(main())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_same_when_the_command_had_to_wait_for_its_turn(store: Store, run: Run, error: BaseException) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command(Deposited(5)))
            await gate.reached.wait()
            before = account.send(Deposit(1))
            failing = asyncio.create_task(raised_by(account.send(Do(raising(error)), timeout=None)))
            after = account.send(Deposit(1))
            await turns()
            gate.opened.set()
            assert await failing is error
            assert [await each for each in (held, before, after)] == [(Balance(5), 1), (Balance(6), 2), (Balance(7), 3)]

    run(main())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_fold_that_raises_no_exception_is_answered_with_it(store: Store, run: Run, error: BaseException) -> None:
    class Moody(Account):
        kind = "moody"

        def handle_event(self, event: AccountEvent, state: Balance) -> Balance:
            if event == Deposited(13):
                raise error
            return super().handle_event(event, state)

    async def main() -> None:
        async with engine(store) as bank:
            moody = bank.get(Moody, "m")
            await moody.send(Deposit(5))
            assert await raised_by(moody.send(Do(lambda _: [Deposited(1), Deposited(13)]))) is error
            assert await moody.send(Deposit(1)) == (Balance(6), 2)

    run(main())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_command_under_an_id_that_ends_so_may_be_sent_again(store: Store, run: Run, error: BaseException) -> None:
    class Once(ego.EventSourcedBehavior[Deposit, Deposited, Balance]):
        failed = False

        def initial_state(self) -> Balance:
            return Balance()

        def handle_command(self, command: Deposit, state: Balance) -> Deposited:
            if not Once.failed:
                Once.failed = True
                raise error
            return Deposited(command.amount)

        def handle_event(self, event: Deposited, state: Balance) -> Balance:
            return Balance(state.amount + event.amount)

    async def main() -> None:
        async with engine(store) as bank:
            once = bank.get(Once, "o")
            assert await raised_by(once.send(Deposit(5), command_id="x")) is error
            assert await once.send(Deposit(5), command_id="x") == (Balance(5), 1)

    run(main())


def waiting(bank: ego.Engine, *ids: str) -> Do:
    """Has the first entity send to the second, which sends to the third, and so on."""
    head, *rest = ids

    async def call(_: Account) -> None:
        await bank.get(Account, head).send(waiting(bank, *rest) if rest else Look(), timeout=None)

    return Do(call)


CIRCLES = [("a", "a"), ("a", "b", "a"), ("a", "b", "b"), ("a", "b", "c", "a"), ("a", "b", "c", "b")]


@pytest.mark.parametrize("circle", CIRCLES, ids=" ".join)
def test_a_circle_of_waiting_handlers_is_told_at_once(store: Store, run: Run, circle: tuple[str, ...]) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            first, *rest = circle
            closed = circle[circle.index(circle[-1]) : -1]
            # It begins with the one who would have closed it.
            chain = tuple(f"account/{each}" for each in (closed[-1], *closed))
            with pytest.raises(ego.DeadlockError, match=" -> ".join(chain)) as caught:
                await bank.get(Account, first).send(waiting(bank, *rest), timeout=None)
            assert caught.value.chain == chain
            for each in set(circle):
                assert await bank.get(Account, each).send(Deposit(1)) == (Balance(1), 1)

    run(main())


@pytest.mark.parametrize("size", [2, 3, 5])
def test_handlers_that_start_to_wait_for_each_other_at_the_same_time(store: Store, run: Run, size: int) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            all_there = asyncio.Barrier(size)

            def call(other: int) -> Do:
                async def wait_then_call(_: Account) -> Deposited:
                    await all_there.wait()
                    await bank.get(Account, f"{other}").send(Look(), timeout=None)
                    return Deposited(1)

                return Do(wait_then_call)

            sent = [bank.get(Account, f"{n}").send(call((n + 1) % size), timeout=None) for n in range(size)]
            answers: list[Any] = await asyncio.gather(*sent, return_exceptions=True)
            # The one who would have closed the circle is told, and the others go on.
            assert sorted(type(each).__name__ for each in answers) == ["DeadlockError"] + ["tuple"] * (size - 1)
            assert max(len(each.chain) for each in answers if isinstance(each, ego.DeadlockError)) == size + 1

    run(main())


def test_a_circle_through_a_command_that_waits_for_its_turn(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            a, b, gate = bank.get(Account, "a"), bank.get(Account, "b"), Gate()

            async def busy(_: Account) -> None:
                gate.reached.set()
                await gate.opened.wait()
                await a.send(Look(), timeout=None)

            held = b.send(Do(busy), timeout=None)
            await gate.reached.wait()
            queued = a.send(waiting(bank, "b"), timeout=None)
            await turns()
            gate.opened.set()
            with pytest.raises(ego.DeadlockError) as caught:
                await held
            assert caught.value.chain == ("account/b", "account/a", "account/b")
            assert await queued == (Balance(0), 0)

    run(main())


def test_who_gave_up_waiting_closes_no_circle(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            a, b, gate = bank.get(Account, "a"), bank.get(Account, "b"), Gate()

            async def impatient(_: Account) -> Deposited:
                with pytest.raises(ego.CommandTimeoutError):
                    await b.send(Look(), timeout=0.01)
                gate.opened.set()
                return Deposited(1)

            async def busy(_: Account) -> Deposited:
                gate.reached.set()
                await gate.opened.wait()
                await a.send(Look(), timeout=None)
                return Deposited(2)

            held = b.send(Do(busy), timeout=None)
            await gate.reached.wait()
            assert await a.send(Do(impatient), timeout=None) == (Balance(1), 1)
            assert await held == (Balance(2), 1)

    run(main())


@pytest.mark.parametrize("circle", [("a",), ("a", "b"), ("a", "b", "c")], ids=" ".join)
def test_what_is_told_closes_no_circle(store: Store, run: Run, circle: tuple[str, ...]) -> None:
    async def main() -> None:
        async with engine(store) as bank:

            def step(*ids: str) -> Do:
                async def call(account: Account) -> Deposited:
                    if ids:
                        bank.get(Account, ids[0]).tell(step(*ids[1:]))
                    return Deposited(1)

                return Do(call)

            await bank.get(Account, circle[0]).send(step(*circle[1:], circle[0]))
            first = bank.get(Account, circle[0])
            while (await first.state())[1] < 2:
                await turns()
            # Everybody was told once, and the first one once more.
            states = [await bank.get(Account, entity_id).state() for entity_id in circle]
            assert states == [(Balance(2), 2), *[(Balance(1), 1)] * (len(circle) - 1)]

    run(main())
