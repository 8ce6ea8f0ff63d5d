"""What a projection is handed, where it starts and goes on, and what it refuses."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, Noted, Split, Withdraw, Withdrawn
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
def logged(words: str) -> Iterator[Logged]:
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
    "lambda": shape(Plain, lambda seen: lambda envelope: seen.take(envelope)),
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
