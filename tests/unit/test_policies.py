"""Policies are frozen values, and what they cannot be is refused where they are made."""

import math
from typing import Any

import pytest

import ego
from ego._projections._policies import Policy, check_policy


def answers(policy: Policy) -> tuple[int, float, bool, bool]:
    return policy.attempts, policy.delay, policy.skips, policy.park_entity


def test_what_each_policy_answers() -> None:
    assert answers(ego.Fail()) == (1, 0.0, False, False)
    assert answers(ego.RetryAndFail()) == (5, 1.0, False, False)
    assert answers(ego.Skip()) == (1, 0.0, True, False)
    assert answers(ego.Skip(park_entity=True)) == (1, 0.0, True, True)
    assert answers(ego.RetryAndSkip(attempts=2, delay=0, park_entity=True)) == (2, 0, True, True)


def test_a_policy_is_a_value() -> None:
    assert ego.RetryAndSkip(attempts=2) == ego.RetryAndSkip(attempts=2)
    assert len({ego.Skip(), ego.Skip(), ego.Skip(park_entity=True)}) == 2
    assert repr(ego.RetryAndFail(delay=0.5)) == "RetryAndFail(attempts=5, delay=0.5)"
    frozen: Any = ego.RetryAndFail()
    with pytest.raises(AttributeError):
        frozen.attempts = 6


def test_the_options_of_a_policy_are_keywords_only() -> None:
    policy: Any = ego.RetryAndFail
    with pytest.raises(TypeError):
        policy(5)


@pytest.mark.parametrize("cls", [ego.RetryAndFail, ego.RetryAndSkip])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("attempts", value) for value in (0, -1, 1.0, True, "5", None, 2**31)),
        *(("delay", value) for value in (-0.1, math.nan, math.inf, True, "1", None)),
    ],
)
def test_the_retries_of_a_policy(cls: Any, option: str, value: Any) -> None:
    with pytest.raises(ego.ConfigError, match=rf"{option} must .* not ") as caught:
        cls(**{option: value})
    assert caught.value.option == option
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("cls", [ego.Skip, ego.RetryAndSkip])
def test_parking_is_true_or_false(cls: Any) -> None:
    with pytest.raises(ego.ConfigError, match="park_entity must be True or False, not 1") as caught:
        cls(park_entity=1)
    assert caught.value.option == "park_entity"


@pytest.mark.parametrize("policy", [None, "skip", ego.Skip])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ego.ConfigError, match=r"policy must be ego\.Fail\(\), .* not "):
        check_policy("policy", policy)
