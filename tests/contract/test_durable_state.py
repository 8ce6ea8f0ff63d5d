"""Entities whose state itself is stored: versions, refusals, failures, restarts."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit
from egotest.full import files_up_to
from egotest.people import Act, Person, Profile, Rename, Retired
from egotest.running import Run, turns

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store, **options: Any) -> ego.Engine:
    return ego.Engine("people", store, behaviors=[Person], **options)


async def later(value: Any) -> Any:
    await turns()
    return value


def test_a_state_is_stored_as_it_is_after_each_command(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as people:
            ada = await people.durable_state_entity(Person("ada"))
            assert await ada.state() == (Profile(), 0)
            assert await ada.send(Rename("Ada")) == (Profile("Ada"), 1)
            assert await ada.send(Rename("Countess")) == (Profile("Countess"), 2)
            assert await people.get(Person, "grace").send(Rename("Grace")) == (Profile("Grace"), 1)
        async with engine(store) as people:
            assert await people.send_command("ada", Rename("Ada")) == (Profile("Ada"), 3)
            assert await people.get(Person, "grace").state() == (Profile("Grace"), 1)

    run(main())


def test_a_thousand_callers_of_one_durable_state_see_every_version_in_order(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            answers = await asyncio.gather(*(ada.send(Rename(str(n))) for n in range(1, 1_001)))
            assert answers == [(Profile(str(n)), n) for n in range(1, 1_001)]
            await people.stop()
            await people.start()
            assert await ada.state() == answers[-1]

    run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_none_and_an_equal_state_of_the_same_version_change_nothing(store: Store, run: Run, asynchronous: bool) -> None:
    unchanged: list[Callable[[int, Any], Any]] = [
        lambda _version, _state: None,
        lambda version, state: (state, version),
        lambda version, state: (Profile(state.name), version),
    ]

    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            for action in unchanged:
                assert await ada.send(Act(action)) == (Profile(), 0)
            await ada.send(Rename("Ada"))
            position = people.stats()["position"]
            for action in unchanged:

                def act(version: int, state: Any, action: Callable[[int, Any], Any] = action) -> Any:
                    return later(action(version, state)) if asynchronous else action(version, state)

                assert await ada.send(Act(act)) == (Profile("Ada"), 1)
            assert people.stats()["position"] == position

    run(main())


def test_an_async_handler_gives_the_next_state(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            sent = [
                ada.send(Act(lambda version, state: later((Profile(state.name + "a"), version + 1)))) for _ in "123"
            ]
            assert [await each for each in sent] == [(Profile("a" * n), n) for n in (1, 2, 3)]
            await people.stop()
            await people.start()
            assert await ada.state() == (Profile("aaa"), 3)

    run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("state", "step"), [(Profile("x"), 0), (Profile("x"), 2), (Profile("Ada"), -1), (Profile("Ada"), 7)]
)
def test_another_version_than_the_next_is_refused_and_both_are_named(
    store: Store, run: Run, state: Profile, step: int, asynchronous: bool
) -> None:
    def act(version: int, _state: Any) -> Any:
        return later((state, version + step)) if asynchronous else (state, version + step)

    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            await ada.send(Rename("Ada"))
            await ada.send(Rename("Ada"))
            with pytest.raises(ego.VersionError, match=f"person/ada.*version {2 + step} where 3") as caught:
                await ada.send(Act(act))
            facts = caught.value
            assert (facts.kind, facts.entity_id, facts.expected, facts.actual) == ("person", "ada", 3, 2 + step)
            assert await ada.state() == (Profile("Ada"), 2)
            assert await ada.send(Rename("Grace")) == (Profile("Grace"), 3)

    run(main())


@pytest.mark.parametrize("step", [0, 1])
def test_a_state_of_another_type_is_refused_and_both_are_named(store: Store, run: Run, step: int) -> None:
    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            await ada.send(Rename("Ada"))
            with pytest.raises(ego.VersionError, match=r"Retired.*Profile") as caught:
                await ada.send(Act(lambda version, state: (Retired(state.name), version + step)))
            assert (caught.value.expected_type, caught.value.actual_type) == ("Profile", "Retired")
            assert (caught.value.expected, caught.value.actual) == (2, 1 + step)
            assert await ada.send(Rename("Grace")) == (Profile("Grace"), 2)

    run(main())


class Special(Profile):
    pass


RUBBISH: list[Any] = [
    5,
    Profile("x"),
    (Profile("x"),),
    (Profile("x"), 1, 1),
    [Profile("x"), 1],
    (1, Profile("x")),
    (Profile("x"), "1"),
    (Profile("x"), 1.0),
    (Profile("x"), True),
    (Profile("x"), None),
    (Profile("x"), 2**64),
    (None, 1),
    (Profile, 1),
    (Balance(1), 1),
    (Special("x"), 1),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("rubbish", RUBBISH, ids=[str(number) for number in range(len(RUBBISH))])
def test_a_handler_of_durable_states_that_returns_rubbish(
    store: Store, run: Run, rubbish: Any, asynchronous: bool
) -> None:
    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            with pytest.raises((ego.HandlerResultError, ego.VersionError), match="person/ada") as caught:
                await ada.send(Act(lambda _version, _state: later(rubbish) if asynchronous else rubbish))
            facts: Any = caught.value
            assert (facts.kind, facts.entity_id) == ("person", "ada")
            assert await ada.state() == (Profile(), 0)
            assert await ada.send(Rename("Ada")) == (Profile("Ada"), 1)

    run(main())


def test_a_state_that_cannot_be_encoded_changes_nothing(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            await ada.send(Rename("Ada"))
            for extra in (object(), 2**70, "\ud800"):

                def act(version: int, _state: Any, extra: object = extra) -> tuple[Profile, int]:
                    return Profile("x", extra), version + 1

                with pytest.raises(ego.CodecError, match=r"person/ada.*Profile"):
                    await ada.send(Act(act))
            assert await ada.send(Rename("Grace")) == (Profile("Grace"), 2)

    run(main())


def test_a_state_whose_comparison_raises_is_the_users_exception(store: Store, run: Run) -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError("odd")

        __hash__ = None  # type: ignore[assignment]

    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            with pytest.raises(ZeroDivisionError, match="odd"):
                await ada.send(Act(lambda version, _state: (Profile("", Odd()), version)))
            assert await ada.send(Rename("Ada")) == (Profile("Ada"), 1)

    run(main())


class Blast(BaseException):
    pass


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("error", [KeyError("no"), Blast()])
def test_a_durable_state_is_as_before_when_its_handler_raises(
    store: Store, run: Run, error: BaseException, asynchronous: bool
) -> None:
    async def fail_later() -> None:
        await turns()
        raise error

    def fail(_version: int, _state: Any) -> Any:
        if asynchronous:
            return fail_later()
        raise error

    async def main() -> None:
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            await ada.send(Rename("Ada"))
            with pytest.raises(type(error)) as caught:
                await ada.send(Act(fail))
            assert caught.value is error
            assert await ada.send(Rename("Grace")) == (Profile("Grace"), 2)

    run(main())


def test_defect_8_a_failed_durable_state_write_changes_nothing_in_memory(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = ego.LogStore(tmp_path / "s")
        async with engine(store) as people:
            ada = people.get(Person, "ada")
            answer = await ada.send(Rename("Ada"))
            with files_up_to(1 << 20):
                with pytest.raises(ego.StoreFullError):
                    while True:
                        answer = await ada.send(Rename(f"{answer[1]}" + "x" * 90_000))
                assert await ada.state() == answer
                # The commands that were sent ahead of the refused one fail with it.
                ahead = [ada.send(Rename("y" * 100_000)) for _ in range(4)]
                answers = await asyncio.gather(*ahead, return_exceptions=True)
                assert [type(each) for each in answers] == [ego.StoreFullError] * 4
                assert await ada.state() == answer
                versions: list[int] = []

                def look(version: int, state: Any) -> None:
                    versions.append(version)
                    assert state == answer[0]

                assert await ada.send(Act(look)) == answer
                assert versions == [answer[1]]
            assert await ada.send(Rename("Grace")) == (Profile("Grace"), answer[1] + 1)
            await people.stop()
            await people.start()
            assert await ada.state() == (Profile("Grace"), answer[1] + 1)

    run(main())


def test_defect_8_a_state_over_the_cap_changes_nothing_in_memory(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s", max_unit_bytes=4096)) as people:
            ada = people.get(Person, "ada")
            await ada.send(Rename("Ada"))
            with pytest.raises(ego.MessageTooLargeError, match="person/ada"):
                await ada.send(Rename("x" * 5_000))
            assert await ada.state() == (Profile("Ada"), 1)
            assert await ada.send(Rename("Grace")) == (Profile("Grace"), 2)

    run(main())


def test_states_may_have_a_store_of_their_own(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        events, states = ego.LogStore(tmp_path / "events"), ego.LogStore(tmp_path / "states")
        both = ego.Engine("both", events, behaviors=[Account, Person], state_store=states)
        async with both:
            # One id for two entities of two kinds in two stores.
            assert await both.get(Account, "x").send(Deposit(5)) == (Balance(5), 1)
            assert await both.get(Person, "x").send(Rename("X")) == (Profile("X"), 1)
            with pytest.raises(ego.KindConflictError):
                _ = both.send_command("x", Deposit(1))
            sent = [
                both.get(Account, f"{n}").send(Deposit(n)) if n % 2 else both.get(Person, f"{n}").send(Rename(f"{n}"))
                for n in range(100)
            ]
            answers: list[Any] = await asyncio.gather(*sent)
            assert answers == [(Balance(n) if n % 2 else Profile(f"{n}"), 1) for n in range(100)]
        async with both:
            assert await both.send_command("1", Deposit(1)) == (Balance(2), 2)
            assert await both.send_command("2", Rename("two")) == (Profile("two"), 2)
        async with engine(states) as people:
            assert await people.get(Person, "x").state() == (Profile("X"), 1)
            with pytest.raises(ego.EntityNotFoundError):
                _ = people.send_command("1", Rename("one"))

    run(main())


def test_a_state_store_that_does_not_open_leaves_the_other_closed(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        (tmp_path / "states").write_text("no store")
        events = ego.LogStore(tmp_path / "events")
        both = ego.Engine("both", events, behaviors=[Person], state_store=ego.LogStore(tmp_path / "states"))
        with pytest.raises(ego.StorageError):
            await both.start()
        assert not both.started
        async with engine(events) as people:
            assert await people.get(Person, "ada").send(Rename("Ada")) == (Profile("Ada"), 1)

    run(main())


@pytest.mark.parametrize("state_store", [5, "states.ego", Path("states.ego")])
def test_a_state_store_that_is_none(state_store: Any) -> None:
    with pytest.raises(ego.ConfigError, match="state_store must be") as caught:
        engine(ego.MemoryStore(), state_store=state_store)
    assert caught.value.option == "state_store"


class Tally(ego.DurableStateBehavior[Deposit, Balance]):
    kind = "account"

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Deposit, version: int, state: Balance) -> tuple[Balance, int]:
        return Balance(state.amount + command.amount), version + 1


def test_events_are_not_read_as_a_durable_state_and_a_state_not_as_events(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            await bank.get(Account, "events").send(Deposit(5))
        async with ego.Engine("bank", store, behaviors=[Tally]) as bank:
            await bank.get(Tally, "state").send(Deposit(5))
            for _ in range(2):
                with pytest.raises(ego.ReplayError, match=r"account/events: the store holds events") as caught:
                    await bank.get(Tally, "events").send(Deposit(1))
                assert (caught.value.kind, caught.value.entity_id, caught.value.revision) == ("account", "events", 1)
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            for _ in range(2):
                with pytest.raises(ego.ReplayError, match="account/state: the store holds durable states"):
                    await bank.get(Account, "state").send(Deposit(1))
            assert await bank.get(Account, "events").send(Deposit(1)) == (Balance(6), 2)

    run(main())


def test_the_type_of_a_union_that_was_stored_is_the_type_after_a_restart(store: Store, run: Run) -> None:
    class Ghost(Person):
        def initial_state(self) -> Profile | Retired:
            return Retired("nobody")

    async def main() -> None:
        async with engine(store) as people:
            await people.get(Person, "ada").send(Rename("Ada"))
        async with ego.Engine("people", store, behaviors=[Ghost]) as people:
            assert await people.get(Ghost, "ada").send(Rename("Grace")) == (Profile("Grace"), 2)
            with pytest.raises(ego.VersionError):
                await people.get(Ghost, "new").send(Rename("Grace"))
            retired = await people.get(Ghost, "new").send(Act(lambda version, _state: (Retired("x"), version + 1)))
            assert retired == (Retired("x"), 1)

    run(main())


def test_a_stored_state_that_no_type_is_declared_for(store: Store, run: Run) -> None:
    class Other(ego.State):
        label: str = ""

    class Changed(ego.DurableStateBehavior[Rename, Other]):
        kind = "person"

        def initial_state(self) -> Other:
            return Other()

        def handle_command(self, command: Rename, version: int, state: Other) -> None:
            return None

    async def main() -> None:
        async with engine(store) as people:
            await people.get(Person, "ada").send(Rename("Ada"))
            await people.get(Person, "ada").send(Rename("Ada"))
        async with ego.Engine("people", store, behaviors=[Changed]) as people:
            with pytest.raises(ego.UnknownEventError, match=r"person/ada: state 2 .*Profile.* version 1") as caught:
                await people.get(Changed, "ada").state()
            assert (caught.value.name, caught.value.version, caught.value.revision) == ("Profile", 1, 2)
            assert await people.get(Changed, "new").state() == (Other(), 0)

    run(main())


def test_a_stored_state_that_does_not_decode(store: Store, run: Run) -> None:
    @ego.stored("Profile")
    class Numbered(ego.State):
        name: int = 0

    class Changed(ego.DurableStateBehavior[Rename, Numbered]):
        kind = "person"

        def initial_state(self) -> Numbered:
            return Numbered()

        def handle_command(self, command: Rename, version: int, state: Numbered) -> None:
            return None

    async def main() -> None:
        async with engine(store) as people:
            await people.get(Person, "ada").send(Rename("Ada"))
        async with ego.Engine("people", store, behaviors=[Changed]) as people:
            with pytest.raises(ego.CodecError, match="person/ada: stored state 1 cannot be decoded"):
                await people.get(Changed, "ada").state()

    run(main())


def test_an_object_of_the_other_sort_is_refused(store: Store, run: Run) -> None:
    account: Any = Account("a")
    person: Any = Person("p")

    async def main() -> None:
        async with engine(store) as people:
            with pytest.raises(ego.ConfigError, match="DurableStateBehavior"):
                await people.durable_state_entity(account)
            with pytest.raises(ego.ConfigError, match="EventSourcedBehavior"):
                await people.entity(person)

    run(main())
