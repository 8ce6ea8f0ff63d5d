"""What a projection is handed, where it starts and goes on, and what it refuses."""

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Deposit, Deposited, Do, Noted, Split, Withdraw, Withdrawn
from egotest.meters import Meter, WordMeter
from egotest.people import Person, Rename
from egotest.running import Run, turns

import ego
from ego import testing

Store = ego.LogStore | ego.MemoryStore
Envelope = ego.EventEnvelope[Any]


def engine(store: Store | testing.FaultyStore) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account, Person])


async def deposit(bank: ego.Engine, count: int, entity_id: str = "a") -> None:
    for _ in range(count):
        await bank.get(Account, entity_id).send(Deposit(1))


async def caught_up(bank: ego.Engine, name: str = "seen", entity_id: str = "a") -> ego.ProjectionStatus:
    """Its status once it has handled everything that is stored by now."""
    account = bank.get(Account, entity_id)
    _, revision = await account.state()
    await bank.projection(name).wait_for(account, revision)
    return bank.projection(name).status()


class Logged(logging.Handler):
    """Says when a line with some words was logged."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words
        self.seen = asyncio.Event()
        self.line = ""

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            self.line = f"{record.levelname} {record.getMessage()}"
            self.seen.set()


@contextmanager
def logged(words: str) -> Generator[Logged]:
    handler = Logged(words)
    logging.getLogger("ego").addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger("ego").removeHandler(handler)


class Seen:
    """Positions, in the order in which they came. A handler of each shape fills one."""

    def __init__(self) -> None:
        self.positions = list[int]()

    def take(self, envelope: Envelope) -> None:
        self.positions.append(envelope.position)


class Plain(Seen):
    def handle(self, envelope: Envelope) -> None:
        self.take(envelope)


class Later(Seen):
    async def handle(self, envelope: Envelope) -> None:
        await asyncio.sleep(0)
        self.take(envelope)


class Pages(Seen):
    def handle_batch(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            self.take(envelope)


class PagesLater(Seen):
    async def handle_batch(self, envelopes: list[Envelope]) -> None:
        await asyncio.sleep(0)
        for envelope in envelopes:
            self.take(envelope)


def shape(make: Callable[[], Seen], of: Callable[[Any], object]) -> Callable[[], tuple[Seen, object]]:
    def both() -> tuple[Seen, object]:
        seen = make()
        return seen, of(seen)

    return both


HANDLERS = {
    "function": shape(Plain, lambda seen: seen.handle),
    "coroutine function": shape(Later, lambda seen: seen.handle),
    "bound method of another name": shape(Plain, lambda seen: seen.take),
    "handle": shape(Plain, lambda seen: seen),
    "async handle": shape(Later, lambda seen: seen),
    "handle_batch": shape(Pages, lambda seen: seen),
    "async handle_batch": shape(PagesLater, lambda seen: seen),
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_every_event_comes_once_and_in_order(store: Store, run: Run, handler: str, batch_size: int) -> None:
    """Stored before it was added and while it reads, and pages end between the two events of a command."""

    async def main() -> None:
        seen, given = HANDLERS[handler]()
        async with engine(store) as bank:
            for number in range(20):
                await bank.get(Account, f"a-{number % 3}").send(Split((1, 2)))
            await bank.add_projection("seen", given, batch_size=batch_size)
            for _ in range(10):
                await bank.get(Account, "a").send(Split((1, 2)))
            status = await caught_up(bank)
            assert (status.state, status.position, status.lag, status.lag_seconds) == ("running", 60, 0, 0.0)
            assert (status.name, status.dead_letters, status.last_error) == ("seen", 0, None)
        assert seen.positions == [*range(1, 61)]

    run(main())


def test_durable_states_are_passed_over(store: Store, run: Run) -> None:
    async def main() -> None:
        seen = Plain()
        async with engine(store) as bank:
            await bank.get(Person, "p").send(Rename("Ada"))
            await deposit(bank, 1)
            await bank.get(Person, "p").send(Rename("Bob"))
            await bank.add_projection("seen", seen)
            status = await caught_up(bank)
            assert (seen.positions, status.position, status.lag) == ([2], 3, 0)

    run(main())


class OfOne(Seen):
    def handle(self, envelope: ego.EventEnvelope[Deposited]) -> None:
        self.take(envelope)


class OfEither(Seen):
    async def handle(self, envelope: ego.EventEnvelope[Deposited | Noted]) -> None:
        self.take(envelope)


class OfEitherEnvelope(Seen):
    def handle(self, envelope: ego.EventEnvelope[Deposited] | ego.EventEnvelope[Noted]) -> None:
        self.take(envelope)


class OfLists(Seen):
    def handle_batch(self, envelopes: list[ego.EventEnvelope[Withdrawn | Noted]]) -> None:
        for envelope in envelopes:
            self.take(envelope)


class OfAll(Seen):
    def handle(self, envelope) -> None:  # type: ignore[no-untyped-def]  # pyright: ignore
        self.take(envelope)  # pyright: ignore[reportUnknownArgumentType]


@pytest.mark.parametrize(
    ("handler", "events", "positions"),
    [
        (OfOne, None, [1, 2, 5]),
        (OfEither, None, [1, 2, 4, 5]),
        (OfEitherEnvelope, None, [1, 2, 4, 5]),
        (OfLists, None, [3, 4]),
        (OfAll, None, [1, 2, 3, 4, 5]),
        (Plain, None, [1, 2, 3, 4, 5]),
        (Plain, [Withdrawn], [3]),
        (Pages, (Withdrawn, Deposited), [1, 2, 3, 5]),
        (OfOne, [Withdrawn], [3]),
        (OfOne, [Noted, Withdrawn], [3, 4]),
    ],
)
def test_only_the_wanted_types_come_and_the_others_are_no_lag(
    store: Store, run: Run, handler: type[Seen], events: Any, positions: list[int]
) -> None:
    async def main() -> None:
        seen = handler()
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Split((1, 2)))
            await account.send(Withdraw(1))
            await account.send(Do(lambda _: Noted("hi")))
            await bank.add_projection("seen", seen, events=events)
            await account.send(Deposit(4))
            status = await caught_up(bank)
            assert (seen.positions, status.position, status.lag) == (positions, 5, 0)

    run(main())


def test_who_waits_for_an_event_that_is_passed_over_goes_on(store: Store, run: Run) -> None:
    async def main() -> None:
        seen = Plain()
        async with engine(store) as bank:
            await bank.add_projection("seen", seen, events=[Withdrawn])
            for revision in range(1, 20):
                await bank.get(Account, "a").send(Deposit(1))
                await bank.projection("seen").wait_for(bank.get(Account, "a"), revision)
            await bank.get(Account, "a").send(Withdraw(1))
            await caught_up(bank)
            assert seen.positions == [20]

    run(main())


@pytest.mark.parametrize("between", ["remove and add", "a restart"])
def test_a_projection_goes_on_from_where_it_stood(store: Store, run: Run, between: str) -> None:
    async def main() -> None:
        seen, bank = Plain(), engine(store)
        await bank.start()
        await bank.add_projection("seen", seen)
        await deposit(bank, 3)
        await caught_up(bank)
        if between == "a restart":
            assert (await bank.stop()).finished
            await bank.start()
        else:
            await bank.remove_projection("seen")
            assert not await bank.is_projection_running("seen")
        await deposit(bank, 2)
        assert seen.positions == [1, 2, 3]
        await bank.add_projection("seen", seen, start="beginning")
        await caught_up(bank)
        assert seen.positions == [1, 2, 3, 4, 5]
        assert await bank.is_projection_running("seen")
        await bank.stop()

    run(main())


def test_each_name_has_an_offset_of_its_own(store: Store, run: Run) -> None:
    async def main() -> None:
        one, other = Plain(), Later()
        async with engine(store) as bank:
            await deposit(bank, 3)
            await bank.add_projection("one", one)
            await caught_up(bank, "one")
            await bank.remove_projection("one")
            await bank.add_projection("one/more", other)
            await caught_up(bank, "one/more")
            assert one.positions == other.positions == [1, 2, 3]

    run(main())


STARTS: dict[str, tuple[Callable[[list[Envelope]], Any], list[int]]] = {
    "beginning": (lambda _: "beginning", [1, 2, 3, 4, 5]),
    "end": (lambda _: "end", [5]),
    "position 0": (lambda _: 0, [1, 2, 3, 4, 5]),
    "position 3": (lambda _: 3, [4, 5]),
    "the last position": (lambda _: 4, [5]),
    "cursor": (lambda envelopes: envelopes[1].cursor, [3, 4, 5]),
    "datetime of an event": (lambda envelopes: envelopes[2].time, [3, 4, 5]),
    "datetime before all": (lambda _: datetime(2001, 1, 1, tzinfo=UTC), [1, 2, 3, 4, 5]),
    "datetime before 1970": (lambda _: datetime(1901, 1, 1, tzinfo=UTC), [1, 2, 3, 4, 5]),
    "datetime after all": (lambda _: datetime(2222, 1, 1, tzinfo=UTC), [5]),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_counts_where_there_is_no_offset_yet(store: Store, run: Run, start: str) -> None:
    """And is remembered, even where nothing has come before the restart."""
    make, positions = STARTS[start]

    async def main() -> None:
        envelopes, seen, clock = list[Envelope](), Plain(), testing.Clock()
        bank = ego.Engine("bank", store, behaviors=[Account], clock=clock)
        async with bank:
            await bank.add_projection("all", envelopes.append)
            for _ in range(4):
                await deposit(bank, 1)
                clock.advance(1.0)
            await caught_up(bank, "all")
            await bank.add_projection("seen", seen, start=make(envelopes))
        async with bank:
            await deposit(bank, 1)
            await bank.add_projection("seen", seen, start="beginning" if start == "end" else "end")
            await caught_up(bank)
        assert seen.positions == positions

    run(main())


def test_a_failed_projection_says_so_and_where(store: Store, run: Run) -> None:
    async def main() -> None:
        def handle(envelope: Envelope) -> None:
            raise ValueError("no")

        with logged("has stopped") as log:
            async with engine(store) as bank:
                await bank.add_projection("seen", handle)
                await deposit(bank, 1)
                await log.seen.wait()
                assert bank.stats()["projections_failed"] == 1
                assert bank.projection("seen").status().position == 0
                with pytest.raises(ego.ProjectionError, match="does not run"):
                    await bank.projection("seen").retry()
                await bank.remove_projection("seen")
                assert bank.stats()["projections_failed"] == 0
        assert log.line == "ERROR projection seen has stopped at event account/a/1, position 1: ValueError: no"

    run(main())


class OddError(BaseException):
    pass


@pytest.mark.parametrize("error", [OddError, asyncio.CancelledError, TimeoutError, ego.StorageError])
@pytest.mark.parametrize("later", [False, True])
def test_whatever_a_handler_raises_is_its_failure(
    store: Store, run: Run, error: type[BaseException], later: bool
) -> None:
    async def main() -> None:
        taken = Seen()

        def handle(envelope: Envelope) -> None:
            if envelope.position == 2:
                raise error("no")
            taken.take(envelope)

        async def handle_later(envelope: Envelope) -> None:
            await asyncio.sleep(0)
            handle(envelope)

        async with engine(store) as bank:
            await deposit(bank, 3)
            await bank.add_projection("seen", handle_later if later else handle, policy=ego.Skip())
            await caught_up(bank)
            [letter] = bank.projection("seen").dead_letters()
            assert (letter.position, letter.attempts, letter.error) == (2, 1, f"{error.__qualname__}: no")
            assert taken.positions == [1, 3]

    run(main())


@pytest.mark.parametrize("looks", [True, False])
def test_an_event_that_cannot_be_decoded_goes_by_the_policy_of_who_looks_at_it(
    store: Store, run: Run, looks: bool
) -> None:
    async def main() -> None:
        seen = Seen()

        def handle(envelope: Envelope) -> None:
            if looks:
                _ = envelope.event
            seen.take(envelope)

        async with ego.Engine("bank", store, behaviors=[Meter]) as bank:
            await bank.get(Meter, "m").send(Deposit(1))
        async with ego.Engine("bank", store, behaviors=[WordMeter, Account]) as bank:
            await deposit(bank, 1)
            await bank.add_projection("seen", handle, policy=ego.Skip())
            await caught_up(bank)
            letters = bank.projection("seen").dead_letters()
            assert seen.positions == ([2] if looks else [1, 2])
            assert [letter.entity for letter in letters] == ([("meter", "m")] if looks else [])
            assert all("CodecError" in letter.error for letter in letters)

    run(main())


def test_a_store_that_fails_is_not_the_handlers_fault(store: Store, run: Run) -> None:
    async def main() -> None:
        seen, faults = Plain(), testing.Faults()
        bank = engine(testing.FaultyStore(store, faults))
        with logged("the store failed") as log:
            await bank.start()
            await bank.add_projection("seen", seen, policy=ego.Fail())
            await deposit(bank, 1)
            await caught_up(bank)
            faults.fail("append")
            with pytest.raises(ego.OutcomeUnknownError):
                await deposit(bank, 1)
            await log.seen.wait()
            status = bank.projection("seen").status()
            assert (status.state, status.position, status.dead_letters) == ("retrying", 1, 0)
            assert isinstance(status.last_error, ego.StorageError)
            assert await bank.is_projection_running("seen")
            assert (await bank.stop()).projections == 0
        async with bank:
            await bank.add_projection("seen", seen)
            await deposit(bank, 1)
            await caught_up(bank)
        assert seen.positions[-1] == 2
        assert set(seen.positions) == {1, 2}, "an offset that a failed store did not take means once more"

    run(main())


def test_an_event_that_the_store_holds_is_handled_once_though_its_sender_still_waits(store: Store, run: Run) -> None:
    async def main() -> None:
        seen, handled, faults = Seen(), asyncio.Event(), testing.Faults()

        def handle(envelope: Envelope) -> None:
            seen.take(envelope)
            handled.set()

        async with engine(testing.FaultyStore(store, faults)) as bank:
            await bank.add_projection("seen", handle)
            with faults.hold("append", entity=(Account, "a")) as held:
                sending = asyncio.create_task(deposit(bank, 1))
                await held.reached()
                await handled.wait()
                assert not sending.done()
            await sending
            await caught_up(bank)
            assert seen.positions == [1]

    run(main())


def test_a_stop_leaves_a_handler_that_waits_and_the_event_comes_again(store: Store, run: Run) -> None:
    async def main() -> None:
        seen, reached, cancelled = Seen(), asyncio.Event(), list[int]()

        async def handle(envelope: Envelope) -> None:
            if envelope.position == 2 and not cancelled:
                reached.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(envelope.position)
                    raise
            seen.take(envelope)

        bank = engine(store)
        await bank.start()
        await deposit(bank, 3)
        await bank.add_projection("seen", handle, policy=ego.Skip())
        await reached.wait()
        report = await bank.stop(timeout=0.01)
        assert (report.projections, report.finished, cancelled) == (1, False, [2])
        async with bank:
            await bank.add_projection("seen", handle)
            assert bank.projection("seen").dead_letters() == []
            await caught_up(bank)
        assert seen.positions[-2:] == [2, 3]
        assert seen.positions[0] == 1

    run(main())


def test_a_stop_waits_for_a_handler_that_ends_in_time(store: Store, run: Run) -> None:
    async def main() -> None:
        seen, reached, opened = Seen(), asyncio.Event(), asyncio.Event()

        async def handle(envelope: Envelope) -> None:
            if envelope.position == 2:
                reached.set()
                await opened.wait()
            seen.take(envelope)

        bank = engine(store)
        await bank.start()
        await deposit(bank, 2)
        await bank.add_projection("seen", handle)
        await reached.wait()
        stopping = asyncio.create_task(bank.stop())
        await turns()
        assert not stopping.done()
        opened.set()
        report = await stopping
        assert (report.projections, report.finished) == (0, True)
        async with bank:
            await bank.add_projection("seen", handle)
            await caught_up(bank)
        assert seen.positions == [1, 2]

    run(main())


def test_a_stop_comes_between_two_events_of_a_handler_that_never_waits(store: Store, run: Run) -> None:
    async def main() -> None:
        seen, stopping = Seen(), list[asyncio.Task[ego.StopReport]]()
        bank = engine(store)

        def handle(envelope: Envelope) -> None:
            seen.take(envelope)
            if envelope.position == 2:
                stopping.append(asyncio.create_task(bank.stop()))
                over = time.monotonic() + 0.01
                while time.monotonic() < over:
                    pass

        await bank.start()
        await deposit(bank, 5)
        await bank.add_projection("seen", handle)
        with pytest.raises((ego.ProjectionError, ego.EngineNotStartedError)):
            await bank.projection("seen").wait_for(bank.get(Account, "a"), 5)
        report = await stopping[0]
        assert (report.projections, report.finished, seen.positions) == (0, True, [1, 2])
        async with bank:
            await bank.add_projection("seen", seen.take)
            await caught_up(bank)
        assert seen.positions == [1, 2, 3, 4, 5]

    run(main())


class Both(Plain, Pages):
    """Has `handle` and `handle_batch`."""


def two(envelope: object, other: object) -> None: ...


def one(envelope: object) -> None: ...


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "n" * 201}),
        ("name", {"name": 7}),
        ("handler", {"handler": None}),
        ("handler", {"handler": Plain}),
        ("handler", {"handler": Both()}),
        ("handler", {"handler": two}),
        ("handler", {"into": True}),
        ("events", {"events": "Deposited"}),
        ("events", {"events": Deposited}),
        ("events", {"events": []}),
        ("events", {"events": [Deposited, "Noted"]}),
        ("start", {"start": "middle"}),
        ("start", {"start": -1}),
        ("start", {"start": True}),
        ("start", {"start": 1.5}),
        ("start", {"start": None}),
        ("start", {"start": datetime(2026, 1, 1)}),
        ("policy", {"policy": ego.Fail}),
        ("policy", {"policy": "skip"}),
        ("policy", {"policy": None}),
        ("batch_size", {"batch_size": 0}),
        ("batch_size", {"batch_size": True}),
        ("batch_size", {"batch_size": 100_001}),
        ("into", {"into": "seen.db"}),
    ],
)
def test_what_is_wrong_is_refused_by_name(run: Run, tmp_path: Path, option: str, wrong: dict[str, Any]) -> None:
    if wrong.get("into") is True:
        wrong = {"into": ego.SQLiteReadModel(tmp_path / "seen.db")}

    async def main() -> None:
        async with engine(ego.MemoryStore()) as bank:
            given: dict[str, Any] = {"name": "seen", "handler": one} | wrong
            with pytest.raises(ego.ConfigError, match=option) as raised:
                await bank.add_projection(**given)
            assert raised.value.option == option
            assert bank.stats()["projections"] == 0

    run(main())


def test_names_that_are_not_there_or_there_already_are_refused(run: Run) -> None:
    async def main() -> None:
        bank = engine(ego.MemoryStore())
        with pytest.raises(ego.EngineNotStartedError):
            await bank.add_projection("seen", one)
        async with bank:
            await bank.add_projection("seen", one)
            with pytest.raises(ego.ProjectionError, match="there already") as raised:
                await bank.add_projection("seen", one)
            assert raised.value.projection == "seen"
            with pytest.raises(ego.ProjectionError, match="'other'; there are: seen"):
                bank.projection("other")
            with pytest.raises(ego.ProjectionError, match="no projection 'other'"):
                await bank.remove_projection("other")
            assert not await bank.is_projection_running("other")
            adding = await asyncio.gather(
                bank.add_projection("twice", one), bank.add_projection("twice", one), return_exceptions=True
            )
            assert [type(each) for each in adding] == [type(None), ego.ProjectionError]
            counted = {name: bank.stats()[name] for name in ("projections", "projections_failed", "dead_letters")}
            assert counted == {"projections": 2, "projections_failed": 0, "dead_letters": 0}

    run(main())


def test_an_offset_that_the_store_has_never_reached_is_refused(store: Store, run: Run) -> None:
    async def main() -> None:
        cursors = list[ego.Cursor]()
        async with engine(ego.MemoryStore()) as elsewhere:
            await elsewhere.add_projection("cursors", lambda envelope: cursors.append(envelope.cursor))  # pyright: ignore
            await deposit(elsewhere, 1)
            await caught_up(elsewhere, "cursors")
        async with engine(store) as bank:
            await deposit(bank, 2)
            with pytest.raises(ego.ProjectionError, match="stands at 3, and the store ends at 2"):
                await bank.add_projection("seen", one, start=3)
            with pytest.raises(ego.ProjectionError, match="one of another store"):
                await bank.add_projection("seen", one, start=cursors[0])
            assert bank.stats()["projections"] == 0

    run(main())


def ignore(_: Envelope) -> None:
    """A handler that wants nothing of an event."""


def test_what_was_passed_over_is_not_looked_at_again(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await bank.add_projection("drawn", ignore, events=[Withdrawn])
            await deposit(bank, 20)
            await bank.projection("drawn").wait_for(bank.get(Account, "a"), 20)
        async with engine(store) as bank:
            await bank.add_projection("drawn", ignore, events=[Withdrawn])
            assert bank.projection("drawn").status().position == 20

    run(main())


def test_an_annotation_that_cannot_be_read_is_refused_unless_events_are_given(store: Store, run: Run) -> None:
    def handle(envelope: Envelope) -> None:
        raise AssertionError(envelope)

    handle.__annotations__["envelope"] = "ego.EventEnvelope[Nowhere]"

    async def main() -> None:
        async with engine(store) as bank:
            with pytest.raises(ego.ConfigError, match="say which events it wants with events=") as refused:
                await bank.add_projection("seen", handle)
            assert refused.value.option == "events"
            await bank.add_projection("seen", handle, events=[Withdrawn])

    run(main())


@pytest.mark.parametrize("into", [False, True])
def test_an_engine_whose_loop_is_gone_starts_again_with_its_projections(tmp_path: Path, into: bool) -> None:
    bank = engine(ego.LogStore(tmp_path / "bank"))
    model = ego.SQLiteReadModel(tmp_path / "seen.db") if into else None
    seen = list[int]()

    def handle(envelope: Envelope, *_: object) -> None:
        seen.append(envelope.position)

    async def begin() -> None:
        await bank.start()
        await deposit(bank, 1)
        await bank.add_projection("seen", handle, into=model)

    async def go_on() -> None:
        await bank.stop()
        async with bank:
            await bank.add_projection("seen", handle, into=model)
            await bank.projection("seen").wait_for(bank.get(Account, "a"), 1)

    left = asyncio.new_event_loop()
    left.run_until_complete(begin())
    left.close()
    asyncio.run(go_on())
    assert seen == [1]
