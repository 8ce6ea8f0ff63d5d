"""given, when, then for durable-state entities."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ego
from ego.testing import ArrangementError, BehaviorError, given


class Rename(ego.Command):
    name: str


class Close(ego.Command):
    pass


class Do(ego.Command):
    """Gives what the function gives for the version and the state."""

    action: Callable[[int, "Profile | Closed"], Any]


class Profile(ego.State):
    name: str = ""


class Closed(ego.State):
    pass


class ClosedError(Exception):
    pass


Change = tuple[Profile | Closed, int] | None


class Member(ego.DurableStateBehavior[Rename | Close | Do, Profile | Closed]):
    kind = "member"

    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(
        self, command: Rename | Close | Do, version: int, state: Profile | Closed
    ) -> Change | Awaitable[Change]:
        match command, state:
            case Rename(name), Profile(now):
                return Profile(name), version + int(name != now)
            case Close(), _:
                return Closed(), version + 1
            case Do(action), _:
                result: Change = action(version, state)
                return result
            case _:
                raise ClosedError(version)


def test_a_member_takes_and_keeps_a_name() -> None:
    (
        given(Member)
        .when(Rename("Ada"))
        .then(state=Profile("Ada"), version=1)
        .when(Rename("Ada"))
        .then()
        .when(Rename("Grace"))
        .then(state=Profile("Grace"), version=2)
    )


def test_a_stored_state_has_version_one_unless_it_is_said() -> None:
    given(Member, state=Profile("Ada")).when(Rename("Grace")).then(state=Profile("Grace"), version=2)
    given(Member, state=Profile("Ada"), version=7).when(Rename("Grace")).then(version=8)
    given(Member, state=Profile(), version=0).when(Rename("Grace")).then(version=1)
    given(Member, state=Closed()).when(Rename("Grace")).rejects(ClosedError, args=(1,))


def test_none_and_the_same_again_are_no_change() -> None:
    given(Member, state=Profile("Ada"), version=3).when(Do(lambda _, __: None)).then().then(state=Profile("Ada"))
    outcome = given(Member, state=Profile("Ada"), version=3).when(Do(lambda version, state: (state, version)))
    outcome.then().then(version=3)


@pytest.mark.parametrize(("state", "version"), [(Profile("B"), 3), (Profile("B"), 5), (Profile("A"), 2), (Closed(), 4)])
def test_another_version_or_type_is_refused_and_both_are_said(state: Profile | Closed, version: int) -> None:
    outcome = given(Member, state=Profile("A"), version=3).when(Do(lambda _, __: (state, version)))
    error = outcome.rejects(ego.VersionError, expected=4, actual=version, kind="member", entity_id="test")
    assert str(error) == (
        f"member/test: handle_command gave version {version} with a {type(state).__name__}; "
        "after version 3 it is version 4 with a Profile, or no change"
    )


@pytest.mark.parametrize("result", [Profile(), (Profile(),), [Profile(), 1], (Profile(), "1"), (Profile(), True), 1])
def test_a_result_that_is_no_change_is_refused(result: object) -> None:
    given(Member).when(Do(lambda _, __: result)).rejects(ego.HandlerResultError, match=r"return \(state, version\)")


def test_a_result_that_is_no_state_is_refused() -> None:
    given(Member).when(Do(lambda _, __: ("Ada", 1))).rejects(ego.HandlerResultError, match="'Ada' where a state is")


def test_an_async_handler_is_run_to_its_end() -> None:
    async def later(version: int, _: Profile | Closed) -> tuple[Profile, int]:
        await asyncio.sleep(0)
        return Profile("Ada"), version + 1

    given(Member).when(Do(later)).then(state=Profile("Ada"), version=1)


def profile(name: Any) -> Profile:
    return Profile(name)


def test_a_state_that_cannot_be_stored_breaks_a_rule() -> None:
    bad = profile(7)
    with pytest.raises(BehaviorError, match=r"Expected `str`, got `int` - at `\$\.name`"):
        given(Member).when(Do(lambda _, __: (bad, 1)))


def test_a_failed_expectation_says_what_differs() -> None:
    outcome = given(Member).when(Rename("Ada"))
    with pytest.raises(AssertionError) as caught:
        outcome.then(state=Profile("Bea"), version=2)
    assert str(caught.value).splitlines() == [
        "member/test at version 0, when Rename(name='Ada'):",
        "  state: Profile.name: expected 'Bea', was 'Ada'",
        "  version: expected 2, was 1",
    ]
    with pytest.raises(AssertionError, match="version: expected 0, was 1"):
        outcome.then()


def test_a_situation_that_cannot_be() -> None:
    untyped: Any = given
    outcome: Any = given(Member).when(Rename("Ada"))
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: untyped(Member, Profile()), "has a durable state and no events"),
        (lambda: outcome.then(Profile()), "has a durable state and no events"),
        (lambda: untyped(Member, state="Ada"), "member/test has states of type Profile, Closed, not 'Ada'"),
        (lambda: outcome.then(state="Ada"), "member/test has states of type Profile, Closed, not 'Ada'"),
        (lambda: untyped(Member, version=2), "version 2 needs a state; version 0 is the initial one"),
        (lambda: untyped(Member, state=Profile(), version=-1), "a version is a number from 0 on, not -1"),
        (lambda: untyped(Member, state=Profile(), version=True), "a version is a number from 0 on, not True"),
        (lambda: untyped(Member, state=Closed(), version=0), r"version 0 has the initial state Profile\(name=''\)"),
        (lambda: untyped(Member, state=profile(7)), "member/test: the state .* can be written and not be read"),
        (lambda: outcome.then(revision=1), "member/test has a version; write version=1"),
    ]
    for arrange, told in cases:
        with pytest.raises(ArrangementError, match=told):
            arrange()
