"""A command that says which revision it was decided on."""

import asyncio
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Do, Gate, Look
from egotest.people import Person, Profile, Rename
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account, Person])


def test_the_expected_revision_lets_the_command_run(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            assert await account.send(Deposit(1), expected_revision=0) == (Balance(1), 1)
            assert await account.send(Deposit(1), expected_revision=1) == (Balance(2), 2)
            assert await bank.send_command("a", Deposit(1), expected_revision=2) == (Balance(3), 3)
            assert await account.send(Deposit(1), expected_revision=None) == (Balance(4), 4)
            assert await account.send(Deposit(1), expected_revision=ego.MUST_EXIST) == (Balance(5), 5)
            new = bank.get(Account, "new")
            assert await new.send(Look(), expected_revision=ego.MUST_NOT_EXIST) == (Balance(0), 0)
            assert await new.send(Deposit(1), expected_revision=ego.MUST_NOT_EXIST) == (Balance(1), 1)

    run(main())


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("given", "shown"),
    [(1, 1), (3, 3), (2**63, 2**63), (0, ego.MUST_NOT_EXIST), (ego.MUST_NOT_EXIST, ego.MUST_NOT_EXIST)],
)
def test_another_revision_is_refused_before_the_handler_runs(
    store: Store, run: Run, given: Any, shown: Any, restart: bool
) -> None:
    ran: list[str] = []

    async def main() -> None:
        async with engine(store) as bank:
            account, person = bank.get(Account, "a"), bank.get(Person, "p")
            for _ in "12":
                await account.send(Deposit(1))
                await person.send(Rename("x"))
            if restart:
                await bank.stop()
                await bank.start()
            answers: list[Any] = [
                account.send(Do(lambda _: ran.append("ran")), expected_revision=given),
                person.send(Rename("y"), expected_revision=given),
                bank.send_command("a", Do(lambda _: ran.append("ran")), expected_revision=given),
            ]
            for answer, key in zip(answers, (("account", "a"), ("person", "p"), ("account", "a")), strict=True):
                with pytest.raises(ego.RevisionConflictError, match=r"at revision 2; nothing was run") as caught:
                    await answer
                facts = caught.value
                assert (facts.kind, facts.entity_id, facts.expected, facts.actual) == (*key, shown, 2)
            assert ran == []
            assert await account.send(Deposit(1), expected_revision=2) == (Balance(3), 3)
            assert await person.send(Rename("z"), expected_revision=2) == (Profile("z"), 3)

    run(main())


def test_what_must_exist_and_does_not_is_refused(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            for expected in (ego.MUST_EXIST, 1):
                with pytest.raises(ego.RevisionConflictError) as caught:
                    await bank.get(Account, "a").send(Deposit(1), expected_revision=expected)
                assert (caught.value.expected, caught.value.actual) == (expected, 0)
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)

    run(main())


def test_of_two_who_expect_one_revision_one_wins(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            sent = [account.send(Deposit(n), expected_revision=0) for n in range(1, 11)]
            answers: list[Any] = await asyncio.gather(*sent, return_exceptions=True)
            assert answers[0] == (Balance(1), 1)
            assert [each.actual for each in answers[1:]] == [1] * 9

    run(main())


def test_a_queued_command_expects_the_revision_at_its_turn(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account, gate = bank.get(Account, "a"), Gate()
            held = account.send(gate.command())
            await gate.reached.wait()
            first = account.send(Deposit(1), expected_revision=0)
            second = account.send(Deposit(2), expected_revision=0)
            third = account.send(Deposit(4), expected_revision=1)
            gate.opened.set()
            assert await held == (Balance(0), 0)
            assert await first == (Balance(1), 1)
            with pytest.raises(ego.RevisionConflictError):
                await second
            assert await third == (Balance(5), 2)

    run(main())


@pytest.mark.parametrize("expected", [-1, 2**64, 1.0, "1", True, b"", "must exist", object()])
def test_an_expected_revision_that_is_none(store: Store, run: Run, expected: Any) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(5))
            for call in (
                lambda: account.send(Deposit(1), expected_revision=expected),
                lambda: bank.send_command("a", Deposit(1), expected_revision=expected),
            ):
                with pytest.raises(ValueError, match="expected_revision is a revision"):
                    call()
            assert await account.send(Deposit(1)) == (Balance(6), 2)

    run(main())
