"""A test that cannot be right is told so, and is no failed expectation."""

from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Noted, OverdrawnError, Withdraw, Withdrawn

import ego
from ego.testing import ArrangementError, given

untyped: Any = given


def refused(arrange: Any) -> str:
    with pytest.raises(ArrangementError) as caught:
        arrange()
    return str(caught.value)


def test_an_arrangement_mistake_is_a_value_error_and_no_failure() -> None:
    assert issubclass(ArrangementError, ValueError)
    assert not issubclass(ArrangementError, AssertionError)


def test_an_event_that_the_kind_does_not_declare() -> None:
    class Paid(ego.Event):
        amount: int

    declared = "account/test has events of type Deposited, Withdrawn, Noted, not Paid(amount=1)"
    assert refused(lambda: untyped(Account, Deposited(1), Paid(1))) == declared
    outcome: Any = given(Account).when(Deposit(1))
    assert refused(lambda: outcome.then(Paid(1))) == declared


def test_a_command_that_the_kind_does_not_take() -> None:
    assert refused(lambda: untyped(Account).when(Deposited(1))) == (
        "account/test takes Deposit, Withdraw, Split, Look, Do, not Deposited(amount=1)"
    )


def test_a_history_that_does_not_fold() -> None:
    with pytest.raises(ArrangementError) as caught:
        given(Account, Deposited(1), Withdrawn(2))
    assert str(caught.value) == (
        "account/test: the history does not fold: event 2, Withdrawn(amount=2): OverdrawnError()"
    )
    assert isinstance(caught.value.__cause__, OverdrawnError)


def test_a_history_that_could_not_be_stored() -> None:
    assert refused(lambda: given(Account, Noted((1, 2)))) == (
        "account/test: the event Noted(note=(1, 2)) is not the same when it is read again: "
        "Noted.note: written (1, 2), read [1, 2]"
    )
    assert "Expected `int`, got `str` - at `$.amount`" in refused(lambda: untyped(Account, Deposited("1")))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_state_where_events_belong() -> None:
    told = "account/test is event-sourced: give the events that led to its state"
    assert refused(lambda: untyped(Account, state=Balance(1))) == told
    assert refused(lambda: untyped(Account, version=1)) == told


def test_an_expected_state_of_another_type() -> None:
    outcome: Any = given(Account).when(Deposit(1))
    assert refused(lambda: outcome.then(Deposited(1), state=1)) == "account/test has states of type Balance, not 1"


def test_a_version_where_a_revision_belongs() -> None:
    outcome = given(Account).when(Deposit(1))
    assert refused(lambda: outcome.then(Deposited(1), version=1)) == "account/test has a revision; write revision=1"


def test_a_command_after_a_refused_one() -> None:
    outcome = given(Account).when(Withdraw(1))
    assert "and only what was accepted can be followed by a command" in refused(lambda: outcome.when(Deposit(1)))


def test_a_kind_that_makes_another_entity() -> None:
    kind = ego.Kind(Account, create=lambda entity_id: Account(entity_id.upper()))
    assert "making it must give a Account with that id" in refused(lambda: given(kind))


def test_what_no_engine_takes_is_refused_in_the_same_words() -> None:
    with pytest.raises(ego.ConfigError, match=r"a behavior must be a subclass of ego\.EventSourcedBehavior"):
        untyped(Balance)
    with pytest.raises(ego.UndefinedEntityError):
        given(Account, id="")
