"""A command under an id is run once, however often and whenever it is sent."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

import pytest
from egotest.bank import Balance, Deposited, Do
from egotest.full import files_up_to
from egotest.people import Person, Profile, Rename
from egotest.running import Run, turns

import ego
from ego import _rejections
from ego.testing import Clock

Store = ego.LogStore | ego.MemoryStore


class TooMuch(ego.Rejection):
    asked: int
    why: str = ""


class Take(ego.Command):
    """Refused with a rejection above 100, and as a bug below 0."""

    amount: int
    why: str = ""
    as_task: bool = False


class Note(ego.Command):
    """No event."""


Till = ego.EventSourcedBehavior[Take | Note | Do, Deposited, Balance]


class Counter(Till):
    kind = "counter"
    runs = 0
    """How often a handler ran, of all counters."""

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Take | Note | Do, state: Balance) -> Any:
        Counter.runs += 1
        match command:
            case Take(amount, why, as_task):
                return self.take_later(amount, why) if as_task else self.take(amount, why)
            case Do(action):
                return cast("Any", action)(self)
            case Note():
                return None

    def take(self, amount: int, why: str) -> Deposited:
        if amount > 100:
            raise TooMuch(amount, why)
        if amount < 0:
            raise ValueError(amount)
        return Deposited(amount)

    async def take_later(self, amount: int, why: str) -> Deposited:
        await turns()
        return self.take(amount, why)

    def handle_event(self, event: Deposited, state: Balance) -> Balance:
        return Balance(state.amount + event.amount)


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    Counter.runs = 0


def engine(store: Store, behavior: Any = Counter, **options: Any) -> ego.Engine:
    return ego.Engine("shop", store, behaviors=[behavior, Person], **options)


async def restarted(shop: ego.Engine) -> None:
    await shop.stop()
    await shop.start()


async def send(counter: ego.EntityRef[Any, Balance], amount: int, command_id: str) -> tuple[Balance, int]:
    return await counter.send(Take(amount), command_id=command_id)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("as_task", [False, True])
def test_a_repeated_command_is_answered_as_the_first_time_and_not_run(
    store: Store, run: Run, restart: bool, as_task: bool
) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            await counter.send(Take(1))
            first = await counter.send(Take(2, as_task=as_task), command_id="second")
            assert first == (Balance(3), 2)
            assert await counter.send(Take(2, as_task=as_task), command_id="second") == first
            for amount in (10, 20):
                await counter.send(Take(amount))
            if restart:
                await restarted(shop)
            for _ in "12":
                assert await counter.send(Take(2, as_task=as_task), command_id="second") == first
                assert await shop.send_command("c", Take(2, as_task=as_task), command_id="second") == first
            assert await counter.state() == (Balance(33), 4)
            assert await counter.send(Take(2, as_task=as_task), command_id="third") == (Balance(35), 5)
            assert Counter.runs == 5

    run(main())


@pytest.mark.parametrize("restart", [False, True])
def test_a_durable_state_is_shown_as_it_was_then(store: Store, run: Run, restart: bool) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            ada = shop.get(Person, "ada")
            for n in range(1, 6):
                assert await ada.send(Rename(f"{n}"), command_id=f"{n}") == (Profile(f"{n}"), n)
            if restart:
                await restarted(shop)
            for n in (3, 5, 1, 2, 4):
                assert await ada.send(Rename(f"{n}"), command_id=f"{n}") == (Profile(f"{n}"), n)
            assert await ada.state() == (Profile("5"), 5)

    run(main())


@pytest.mark.parametrize("restart", [False, True])
def test_a_command_that_changed_nothing_is_remembered_too(store: Store, run: Run, restart: bool) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            assert await counter.send(Note(), command_id="before everything") == (Balance(0), 0)
            await counter.send(Take(5))
            assert await counter.send(Note(), command_id="look") == (Balance(5), 1)
            await counter.send(Take(5))
            if restart:
                await restarted(shop)
            assert await counter.send(Note(), command_id="look") == (Balance(5), 1)
            assert await counter.send(Note(), command_id="before everything") == (Balance(0), 0)
            assert Counter.runs == 4

    run(main())


@pytest.mark.parametrize("as_task", [False, True])
def test_a_duplicate_that_comes_while_the_first_runs_waits_for_it(store: Store, run: Run, as_task: bool) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            sent = [counter.send(Take(7, as_task=as_task), command_id="once") for _ in range(5)]
            other = counter.send(Take(1), command_id="other")
            sent += [counter.send(Take(7, as_task=as_task), command_id="once") for _ in range(5)]
            assert await asyncio.gather(*sent) == [(Balance(7), 1)] * 10
            assert await other == (Balance(8), 2)
            assert Counter.runs == 2

    run(main())


def test_a_duplicate_of_a_command_whose_caller_gave_up_is_answered(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            opened = asyncio.Event()

            async def wait() -> Deposited:
                await opened.wait()
                return Deposited(3)

            Slow.answer = wait
            slow = shop.get(Slow, "s")
            with pytest.raises(ego.CommandTimeoutError) as caught:
                await slow.send(Take(3), command_id="slow", timeout=0.01)
            assert caught.value.outcome == "unknown"
            again = slow.send(Take(3), command_id="slow")
            cancelled = asyncio.ensure_future(slow.send(Take(3), command_id="slow"))
            await turns()
            cancelled.cancel()
            opened.set()
            assert await again == (Balance(3), 1)
            assert await slow.send(Take(3), command_id="slow") == (Balance(3), 1)

    run(main())


class Slow(Counter):
    kind = "slow"
    answer: Any = None

    def handle_command(self, command: Take | Note | Do, state: Balance) -> Any:
        return Slow.answer()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "other", [Take(6), Take(5, why="again"), Note(), Take(5, as_task=True)], ids=["amount", "field", "type", "flag"]
)
def test_another_command_under_the_id_is_refused(store: Store, run: Run, other: Any, restart: bool) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            await send(counter, 5, "x")
            if restart:
                await restarted(shop)
            with pytest.raises(ego.CommandIdReusedError, match=r"counter/c.*'?x'?.*nothing was run") as caught:
                await counter.send(other, command_id="x")
            facts = caught.value
            assert (facts.kind, facts.entity_id, facts.command_id) == ("counter", "c", "x")
            assert isinstance(facts, ValueError)
            # An id belongs to one entity.
            assert await shop.get(Counter, "d").send(Take(6), command_id="x") == (Balance(6), 1)
            assert await counter.state() == (Balance(5), 1)

    run(main())


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("as_task", [False, True])
def test_a_rejection_is_remembered_with_its_fields(store: Store, run: Run, restart: bool, as_task: bool) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            refused = Take(200, "greed", as_task)
            for round_ in range(3):
                with pytest.raises(TooMuch) as caught:
                    await counter.send(refused, command_id="x")
                assert caught.value == TooMuch(200, "greed")
                await send(counter, 1, f"between {round_}")
                if restart:
                    await restarted(shop)
            assert Counter.runs == 4
            assert await counter.state() == (Balance(3), 3)

    run(main())


def test_a_rejection_without_an_id_is_not_remembered(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            for runs in (1, 2):
                with pytest.raises(TooMuch):
                    await counter.send(Take(200))
                assert Counter.runs == runs

    run(main())


@pytest.mark.parametrize("as_task", [False, True])
def test_what_is_no_rejection_is_not_remembered(store: Store, run: Run, as_task: bool) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            for runs in (1, 2):
                with pytest.raises(ValueError, match="-1"):
                    await counter.send(Take(-1, as_task=as_task), command_id="x")
                assert Counter.runs == runs
            # Nor does the id belong to it.
            assert await send(counter, 5, "x") == (Balance(5), 1)

    run(main())


def test_a_repeated_id_is_answered_before_the_expected_revision_is_checked(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            for _ in "12":
                answer = await counter.send(Take(1), command_id="x", expected_revision=0)
                assert answer == (Balance(1), 1)
            with pytest.raises(ego.RevisionConflictError):
                await counter.send(Take(1), command_id="y", expected_revision=0)
            # A conflict is not remembered: nothing was run.
            assert await counter.send(Take(1), command_id="y", expected_revision=1) == (Balance(2), 2)

    run(main())


def test_the_last_so_many_ids_are_remembered(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store, ego.Kind(Counter, keep_command_ids=3)) as shop:
            counter = shop.get(Counter, "c")
            for n in range(1, 6):
                await send(counter, 1, f"{n}")
            await counter.send(Take(1))
            assert await send(counter, 1, "3") == (Balance(3), 3)
            await restarted(shop)
            assert await send(counter, 1, "4") == (Balance(4), 4)
            assert await send(counter, 1, "3") == (Balance(3), 3)
            assert Counter.runs == 6
            assert await send(counter, 1, "2") == (Balance(7), 7)
            assert await send(counter, 1, "3") == (Balance(8), 8)

    run(main())


def test_no_id_is_remembered_where_none_is_kept(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store, ego.Kind(Counter, keep_command_ids=0)) as shop:
            counter = shop.get(Counter, "c")
            for n in (1, 2, 3):
                assert await send(counter, 1, "x") == (Balance(n), n)
            await restarted(shop)
            assert await send(counter, 2, "x") == (Balance(5), 4)

    run(main())


@pytest.mark.parametrize("restart", [False, True])
def test_ids_are_remembered_for_so_long(store: Store, run: Run, restart: bool) -> None:
    async def main() -> None:
        clock = Clock()
        async with engine(store, ego.Kind(Counter, keep_command_ids_for=60), clock=clock) as shop:
            counter = shop.get(Counter, "c")
            await send(counter, 1, "x")
            clock.advance(59)
            await send(counter, 10, "y")
            if restart:
                await restarted(shop)
            assert await send(counter, 1, "x") == (Balance(1), 1)
            clock.advance(2)
            if restart:
                await restarted(shop)
            assert await send(counter, 2, "x") == (Balance(13), 3)
            assert await send(counter, 10, "y") == (Balance(11), 2)
            # It is remembered anew, from its second time on.
            clock.advance(58.5)
            assert await send(counter, 2, "x") == (Balance(13), 3)
            assert await send(counter, 10, "y") == (Balance(23), 4)

    run(main())


@pytest.mark.parametrize("command", [Do(lambda _: None), Do(object())], ids=["function", "object"])  # type: ignore[arg-type]
def test_a_command_that_cannot_be_encoded_has_no_id(store: Store, run: Run, command: Do) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            with pytest.raises(ego.CodecError, match=r"counter/c.*command_id") as caught:
                await counter.send(command, command_id="x")
            assert isinstance(caught.value.__cause__, TypeError)
            assert Counter.runs == 0
            assert await send(counter, 5, "x") == (Balance(5), 1)

    run(main())


class Basket(ego.Command):
    items: Any


def test_equal_commands_are_the_same_however_their_sets_and_mappings_are_ordered(store: Store, run: Run) -> None:
    class Shelf(ego.EventSourcedBehavior[Basket, Deposited, Balance]):
        def initial_state(self) -> Balance:
            return Balance()

        def handle_command(self, command: Basket, state: Balance) -> Deposited:
            return Deposited(1)

        def handle_event(self, event: Deposited, state: Balance) -> Balance:
            return Balance(state.amount + 1)

    async def main() -> None:
        async with ego.Engine("shop", store) as shop:
            shelf = shop.get(Shelf, "s")
            assert await shelf.send(Basket({"a": 1, "b": 2}), command_id="x") == (Balance(1), 1)
            assert await shelf.send(Basket({"b": 2, "a": 1}), command_id="x") == (Balance(1), 1)
            words = [f"word {n}" for n in range(50)]
            assert await shelf.send(Basket(frozenset(words)), command_id="y") == (Balance(2), 2)
            assert await shelf.send(Basket(frozenset(reversed(words))), command_id="y") == (Balance(2), 2)

    run(main())


def test_a_rejection_that_nobody_defines_any_more_is_said_so(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with engine(store, Retiring) as shop:
            with pytest.raises(ego.Rejection):
                await shop.get(Retiring, "c").send(Note(), command_id="x")
            # As in a process in which nobody defines it.
            for name in ("_defined", "_newest"):
                monkeypatch.setattr(_rejections, name, WeakValueDictionary[Any, type]())
            await restarted(shop)
            for _ in "12":
                with pytest.raises(ego.UnknownRejectionError, match=r"'shop\.retired' version 3") as caught:
                    await shop.get(Retiring, "c").send(Note(), command_id="x")
                assert (caught.value.name, caught.value.version) == ("shop.retired", 3)

    run(main())


@ego.stored("shop.retired", version=3)
class Gone(ego.Rejection):
    pass


class Retiring(Counter):
    kind = "retiring"

    def handle_command(self, command: Take | Note | Do, state: Balance) -> Any:
        raise Gone


def test_a_rejection_that_cannot_be_stored_is_said_so_and_its_cause_is_shown(store: Store, run: Run) -> None:
    class Odd(Counter):
        kind = "odd"

        def handle_command(self, command: Take | Note | Do, state: Balance) -> Any:
            value: Any = object()
            raise TooMuch(value)

    async def main() -> None:
        async with engine(store, Odd) as shop:
            odd = shop.get(Odd, "o")
            with pytest.raises(ego.CodecError, match="TooMuch cannot be encoded"):
                await odd.send(Note(), command_id="x")
            with pytest.raises(TooMuch):
                await odd.send(Note())
            assert await odd.state() == (Balance(0), 0)

    run(main())


@pytest.mark.parametrize("command_id", ["", "x" * 256, "é" * 128, "\ud800", 5, b"x", True, object()])
def test_a_command_id_that_is_none(store: Store, run: Run, command_id: Any) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            await counter.send(Take(1))
            for call in (
                lambda: counter.send(Take(1), command_id=command_id),
                lambda: shop.send_command("c", Take(1), command_id=command_id),
            ):
                with pytest.raises(ValueError, match="command_id is a text of 1 to 255 bytes"):
                    call()
            assert await counter.state() == (Balance(1), 1)

    run(main())


@pytest.mark.parametrize("command_id", ["x" * 255, "é" * 127, " ", "a\nb", "日本", "\0"])
def test_command_ids_that_are_fine(store: Store, run: Run, command_id: str) -> None:
    async def main() -> None:
        async with engine(store) as shop:
            counter = shop.get(Counter, "c")
            for _ in "12":
                assert await send(counter, 1, command_id) == (Balance(1), 1)
                await restarted(shop)

    run(main())


def test_the_handler_knows_the_id(store: Store, run: Run) -> None:
    seen: list[str | None] = []

    class Curious(Counter):
        kind = "curious"

        def handle_command(self, command: Take | Note | Do, state: Balance) -> Any:
            seen.append(ego.context().command_id)
            return self.later() if isinstance(command, Note) else None

        async def later(self) -> None:
            await turns()
            seen.append(ego.context().command_id)

    async def main() -> None:
        async with engine(store, Curious) as shop:
            await shop.get(Curious, "c").send(Take(1))
            await shop.get(Curious, "c").send(Take(1), command_id="x")
            await shop.get(Curious, "c").send(Note(), command_id="y")

    run(main())
    assert seen == [None, "x", "y", "y"]


def test_a_record_that_has_no_room_is_refused_and_the_command_runs_again(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as shop:
            counter = shop.get(Counter, "c")
            answer = await send(counter, 1, "first")
            big, fitted = "x" * 60_000, 0
            with files_up_to(1 << 20):
                with pytest.raises(ego.StoreFullError):
                    while True:
                        with pytest.raises(TooMuch):
                            await counter.send(Take(200, big), command_id=f"big {fitted}")
                        fitted += 1
                runs = Counter.runs
                with pytest.raises(ego.StoreFullError):
                    await counter.send(Take(200, big), command_id=f"big {fitted}")
                assert Counter.runs == runs + 1
                assert await counter.state() == answer
                assert await send(counter, 1, "first") == answer
                assert await send(counter, 1, "second") == (Balance(2), 2)
            with pytest.raises(TooMuch):
                await counter.send(Take(200, big), command_id=f"big {fitted}")
            runs = Counter.runs
            await restarted(shop)
            for number in (0, fitted):
                with pytest.raises(TooMuch):
                    await counter.send(Take(200, big), command_id=f"big {number}")
            assert Counter.runs == runs

    run(main())


def test_a_duplicate_sent_ahead_is_not_answered_with_what_is_refused(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as shop:
            counter, big = shop.get(Counter, "c"), "x" * 60_000
            with files_up_to(1 << 20):
                with pytest.raises(ego.StoreFullError):
                    while True:
                        with pytest.raises(TooMuch):
                            await counter.send(Take(200, big), command_id=f"{Counter.runs}")
                first = counter.send(Take(200, big), command_id="x")
                small = counter.send(Take(1))
                again = counter.send(Take(200, big), command_id="x")
                answers: Sequence[Any] = await asyncio.gather(first, small, again, return_exceptions=True)
                assert [type(each) for each in answers] == [ego.StoreFullError, tuple, ego.StoreFullError]
                assert answers[1] == await counter.state() == (Balance(1), 1)
                assert await counter.send(Take(1)) == (Balance(2), 2)

    run(main())


def test_a_refused_record_takes_nothing_of_its_entity_along(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as shop:
            filler, big = shop.get(Counter, "filler"), "x" * 60_000
            with files_up_to(1 << 20):
                with pytest.raises(ego.StoreFullError):
                    while True:
                        with pytest.raises(TooMuch):
                            await filler.send(Take(200, big), command_id=f"{Counter.runs}")
                for number in range(20):
                    counter = shop.get(Counter, f"{number}")
                    refused = [
                        counter.send(Take(200, big), command_id="x"),
                        counter.send(Take(200, big), command_id="x"),
                        counter.state(),
                    ]
                    small = counter.send(Take(1), command_id="y")
                    for each in refused:
                        with pytest.raises(ego.StoreFullError):
                            await each
                    # The second one may be on its way to the disk still.
                    runs = Counter.runs
                    again = counter.send(Take(1), command_id="y")
                    state = counter.state()
                    last = counter.send(Take(1))
                    assert [await each for each in (small, again, state, last)] == [
                        (Balance(1), 1),
                        (Balance(1), 1),
                        (Balance(1), 1),
                        (Balance(2), 2),
                    ]
                    assert Counter.runs == runs + 1

    run(main())
