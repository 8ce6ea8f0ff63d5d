"""given, when, then for event-sourced entities: two stories, and what a failed expectation says."""

import asyncio
import gzip
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from unittest.mock import ANY

import cdnow
import pytest
from egotest.bank import (
    Account,
    Balance,
    Deposit,
    Deposited,
    Do,
    InsufficientFundsError,
    Look,
    Noted,
    OverdrawnError,
    Split,
    Withdraw,
    Withdrawn,
)

import ego
from ego.testing import ArrangementError, given


def failure(outcome_check: object) -> str:
    """The text of the `AssertionError` that a call raises."""
    assert callable(outcome_check)
    with pytest.raises(AssertionError) as caught:
        outcome_check()
    return str(caught.value)


def test_money_comes_and_goes() -> None:
    (
        given(Account)
        .when(Deposit(10))
        .then(Deposited(10), state=Balance(10), revision=1)
        .when(Withdraw(4))
        .then(Withdrawn(4), state=Balance(6), revision=2)
        .when(Split((1, 2)))
        .then(Deposited(1), Deposited(2), state=Balance(9), revision=4)
    )


def test_an_overdraft_is_refused_with_its_facts() -> None:
    error = given(Account, Deposited(5), Withdrawn(2)).when(Withdraw(4)).rejects(InsufficientFundsError, asked=4)
    assert error.balance == 3


@pytest.mark.parametrize("empty_list", [True, False])
def test_no_event_is_an_answer_too(empty_list: bool) -> None:
    given(Account, Deposited(5)).when(Look(empty_list)).then(state=Balance(5), revision=1).then()


def test_an_event_that_does_not_fold_refuses_its_whole_command() -> None:
    def too_much(_: Account) -> list[Deposited | Withdrawn]:
        return [Deposited(1), Withdrawn(2)]

    given(Account).when(Do(too_much)).rejects(OverdrawnError)


def test_one_situation_takes_several_commands() -> None:
    situation = given(Account, Deposited(5))
    situation.when(Withdraw(5)).then(Withdrawn(5), state=Balance(0))
    situation.when(Withdraw(6)).rejects(InsufficientFundsError)
    situation.when(Withdraw(5)).then(Withdrawn(5), state=Balance(0))


def test_the_entity_has_the_id_that_is_given() -> None:
    def note_the_id(account: Account) -> Noted:
        return Noted(account.id)

    given(Account).when(Do(note_the_id)).then(Noted("test"))
    given(Account, id="acct-1").when(Do(note_the_id)).then(Noted("acct-1"))


def test_a_kind_makes_its_behavior() -> None:
    class Fees(Account):
        def __init__(self, entity_id: str, fee: int) -> None:
            super().__init__(entity_id)
            self.fee = fee

        def handle_command(
            self, command: Deposit | Withdraw | Split | Look | Do, state: Balance
        ) -> list[Deposited | Withdrawn | Noted]:
            assert isinstance(command, Deposit)
            return [Deposited(command.amount), Withdrawn(self.fee)]

    kind = ego.Kind(Fees, create=lambda entity_id: Fees(entity_id, 2))
    given(kind, Deposited(1)).when(Deposit(10)).then(Deposited(10), Withdrawn(2), state=Balance(9))


def test_what_is_not_known_beforehand_is_left_open() -> None:
    given(Account).when(Do(lambda account: Noted(id(account)))).then(Noted(ANY))


def test_purchases_of_a_real_customer_add_up() -> None:
    def purchases() -> list[cdnow.Purchase]:
        with gzip.open(Path(cdnow.DATA), "rt", encoding="ascii") as lines:
            rows = [line.split() for line in islice(lines, 1, 100)]
        return [
            cdnow.Purchase(who, date(int(day[:4]), int(day[4:6]), int(day[6:])), int(cds), int(Decimal(dollars) * 100))
            for who, day, cds, dollars in rows
        ]

    customers = {each.customer for each in purchases()}
    expected = cdnow.plain_sums(purchases())
    for name in customers:
        mine = [each for each in purchases() if each.customer == name]
        history = [cdnow.Bought(each.day, each.cds, each.cents) for each in mine]
        last = cdnow.Buy(mine[-1].day, mine[-1].cds, mine[-1].cents)
        (
            given(cdnow.Customer, *history[:-1], id=name)
            .when(last)
            .then(history[-1], state=expected[name], revision=len(mine))
        )


class Add(ego.Command):
    number: int


class Added(ego.Event):
    number: int


class Sum(ego.EventSourcedBehavior[Add, Added, int | None]):
    def initial_state(self) -> None:
        return None

    def handle_command(self, command: Add, state: int | None) -> Added:
        return Added(command.number)

    def handle_event(self, event: Added, state: int | None) -> int | None:
        return (state or 0) + event.number or None


def test_a_state_may_be_any_immutable_value() -> None:
    given(Sum).when(Add(2)).then(Added(2), state=2).when(Add(-2)).then(Added(-2), state=None)
    assert failure(lambda: given(Sum).when(Add(0)).then(Added(0), state=0)).splitlines()[1:] == [
        "  state: int: expected 0, was None",
    ]


async def later(*events: Deposited | Withdrawn) -> list[Deposited | Withdrawn]:
    await asyncio.sleep(0)
    return [*events]


async def refuse() -> None:
    await asyncio.sleep(0)
    raise InsufficientFundsError(1, 0)


def test_an_async_handler_is_run_to_its_end() -> None:
    given(Account).when(Do(lambda _: later(Deposited(1)))).then(Deposited(1), state=Balance(1)).when(Look()).then()
    given(Account).when(Do(lambda _: refuse())).rejects(InsufficientFundsError, balance=0)


def test_inside_a_loop_the_outcome_is_awaited() -> None:
    async def main() -> None:
        first = await given(Account).when(Do(lambda _: later(Deposited(1))))
        second = await first.then(Deposited(1)).when(Do(lambda _: refuse()))
        second.rejects(InsufficientFundsError)
        assert await second is second
        (await given(Account).when(Deposit(1))).then(Deposited(1))

        forgotten = given(Account).when(Do(lambda _: later()))
        with pytest.raises(ArrangementError, match=r"write \(await given\(\.\.\.\)\.when\(\.\.\.\)\)\.then"):
            forgotten.then()
        await forgotten

    asyncio.run(main())


class Stop(BaseException):
    """Nothing that a test expects."""


def test_what_is_no_exception_passes_through() -> None:
    def stop(_: Account) -> None:
        raise Stop

    with pytest.raises(Stop):
        given(Account).when(Do(stop))


@pytest.mark.parametrize("result", [5, "Deposited", Balance(1), {Deposited(1)}, [Deposited(1), None], [Deposit(1)]])
def test_a_result_that_is_no_event_is_refused_as_by_the_engine(result: object) -> None:
    outcome = given(Account).when(Do(lambda _: result))
    error = outcome.rejects(ego.HandlerResultError, match="where an event is wanted: Deposited, Withdrawn, Noted")
    assert (error.kind, error.entity_id) == ("account", "test")


def test_a_failed_expectation_says_what_differs_field_by_field() -> None:
    outcome = given(Account, Deposited(5)).when(Split((1, 2)))
    assert failure(lambda: outcome.then(Deposited(1), Deposited(3), state=Balance(9), revision=2)).splitlines() == [
        "account/test at revision 1, when Split(amounts=(1, 2), as_list=True):",
        "  event 2: Deposited.amount: expected 3, was 2",
        "  state: Balance.amount: expected 9, was 8",
        "  revision: expected 2, was 3",
    ]
    assert failure(lambda: outcome.then(Withdrawn(1))).splitlines()[1:] == [
        "  event 1: Withdrawn: expected Withdrawn(amount=1), was Deposited(amount=1)",
        "  event 2: expected none, was Deposited(amount=2)",
    ]
    assert failure(lambda: outcome.then(Deposited(1), Deposited(2), Deposited(3))).splitlines()[1:] == [
        "  event 3: expected Deposited(amount=3), was none",
    ]


def test_a_failed_expectation_finds_the_smallest_part() -> None:
    note = {"tags": ["a", "b"], "by": (1, 2.5)}
    outcome = given(Account).when(Do(lambda _: Noted({"tags": ["a", "c"], "by": [1, 2.5]})))
    assert failure(lambda: outcome.then(Noted(note))).splitlines()[1:] == [
        "  event 1: Noted.note['tags'][1]: expected 'b', was 'c'",
        "  event 1: Noted.note['by']: expected (1, 2.5), was [1, 2.5]",
    ]
    outcome = given(Account).when(Do(lambda _: Noted(float("nan"))))
    outcome.then(Noted(float("nan")))


def test_a_very_long_value_is_cut() -> None:
    text = failure(lambda: given(Account).when(Do(lambda _: Noted("x" * 1_000))).then())
    assert len(text) < 500
    assert text.endswith("... (1,014 characters)")


def test_an_unexpected_refusal_shows_the_exception() -> None:
    with pytest.raises(AssertionError, match=r"expected to be accepted, was refused with InsufficientF") as caught:
        given(Account).when(Withdraw(1)).then(Withdrawn(1))
    assert isinstance(caught.value.__cause__, InsufficientFundsError)


def test_a_missing_refusal_says_what_was_given_instead() -> None:
    text = failure(lambda: given(Account).when(Deposit(1)).rejects(InsufficientFundsError))
    assert text.endswith(
        "expected to be refused with InsufficientFundsError, was accepted and gave Deposited(amount=1)"
    )
    text = failure(lambda: given(Account).when(Look()).rejects(InsufficientFundsError))
    assert text.endswith("was accepted and gave Balance(amount=0)")


def test_another_refusal_than_the_expected_one_fails() -> None:
    outcome = given(Account).when(Withdraw(1))
    text = failure(lambda: outcome.rejects(OverdrawnError))
    assert "expected to be refused with OverdrawnError, was refused with InsufficientFundsError" in text
    assert failure(
        lambda: outcome.rejects(InsufficientFundsError, "asked for 2", asked=2, balance=0, who="me")
    ).splitlines()[1:] == [
        "  asked: expected 2, was 1",
        "  who: expected 'me', is no attribute of InsufficientFundsError",
        "  text: expected to match 'asked for 2', was 'asked for 1, there is 0'",
    ]
    assert outcome.rejects(InsufficientFundsError, r"asked for \d", asked=1) is not None
