"""What a reader of a store is handed, and when it is woken: what projections and subscriptions are built on."""

import asyncio
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Deposit, Deposited, Look, Split, Withdraw, Withdrawn
from egotest.meters import Meter, WordMeter
from egotest.people import Person, Profile, Rename
from egotest.running import Run, turns

import ego
from ego import testing
from ego._native import Feed

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store | testing.FaultyStore) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account, Person])


def feed(of: ego.Engine, after: int = 0, **filters: Any) -> Feed:
    wanted: dict[str, Any] = {"events": None, "kinds": None, "entity": None, "shard": None, "states": True}
    return of._native.feed(after, **wanted | filters)  # pyright: ignore[reportPrivateUsage]


async def until(reader: Feed, count: int) -> list[Any]:
    """The next so many."""
    taken: list[Any] = []
    while len(taken) < count:
        assert await reader.ready()
        taken += reader.take(count - len(taken))
    return taken


async def fill(bank: ego.Engine) -> None:
    """Positions 1 to 6: three accounts' events and two states among them."""
    await bank.get(Account, "a").send(Split((1, 2)))
    await bank.get(Person, "p").send(Rename("Ada"), metadata={"by": "me"})
    await bank.get(Account, "b").send(Deposit(3))
    await bank.get(Account, "a").send(Withdraw(1), metadata={"why": "rent"})
    await bank.get(Person, "p").send(Rename("Bob"))


def values(taken: list[Any]) -> list[object]:
    return [getattr(each, "event", None) or each.state for each in taken]


EVERYTHING = [Deposited(1), Deposited(2), Profile("Ada"), Deposited(3), Withdrawn(1), Profile("Bob")]


def test_everything_is_handed_out_in_order_with_where_it_stands(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await fill(bank)
            reader = feed(bank)
            taken = await until(reader, 6)
            assert values(taken) == EVERYTHING
            assert [each.position for each in taken] == [1, 2, 3, 4, 5, 6]
            assert [each.revision for each in taken] == [1, 2, 1, 1, 3, 2]
            assert [each.entity_id for each in taken] == ["a", "a", "p", "b", "a", "p"]
            assert [each.kind for each in taken] == ["account", "account", "person", "account", "account", "person"]
            assert [each.name for each in taken][2:5] == ["Profile", "Deposited", "Withdrawn"]
            assert [each.metadata for each in taken] == [{}, {}, {"by": "me"}, {}, {"why": "rent"}, {}]
            assert [each.id for each in taken][3:5] == ["account/b/1", "account/a/3"]
            assert [each.position for each in taken if isinstance(each, ego.StateEnvelope)] == [3, 6]
            times = [each.time for each in taken]
            assert times == sorted(times)
            assert times[0].utcoffset().total_seconds() == 0
            assert {each.cursor.store_id for each in taken} == {bank._native.store_id()}  # pyright: ignore[reportPrivateUsage]
            assert [each.cursor.position for each in taken] == [1, 2, 3, 4, 5, 6]
            assert {each.shard for each in taken if each.entity_id == "a"} == {taken[0].shard}
            assert reader.position == 6
            assert bank._native.last_position() == 6  # pyright: ignore[reportPrivateUsage]

    run(main())


@pytest.mark.parametrize(
    ("filters", "positions"),
    [
        ({"states": False}, [1, 2, 4, 5]),
        ({"events": []}, [3, 6]),
        ({"events": ["Withdrawn"]}, [5]),
        ({"events": ["Withdrawn", "Profile"]}, [3, 5, 6]),
        ({"kinds": ["account"]}, [1, 2, 4, 5]),
        ({"entity": ("account", "a")}, [1, 2, 5]),
        ({"entity": ("person", "a")}, []),
        ({"after": 3}, [4, 5, 6]),
        ({"after": 1, "kinds": ["account"]}, [2, 4, 5]),
    ],
)
def test_a_feed_hands_out_what_it_was_asked_for(
    store: Store, run: Run, filters: dict[str, Any], positions: list[int]
) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await fill(bank)
            reader = feed(bank, **filters)
            taken = await until(reader, len(positions))
            assert [each.position for each in taken] == positions
            await turns()
            assert reader.take(100) == []

    run(main())


def test_a_shard_has_the_events_of_its_entities(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await fill(bank)
            shard = (await until(feed(bank), 1))[0].shard
            taken = await until(feed(bank, shard=shard, kinds=["account"]), 3)
            assert {each.entity_id for each in taken} == {"a"}

    run(main())


def test_pages_of_any_size_leave_nothing_out(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            for number in range(100):
                await bank.get(Account, f"a-{number % 7}").send(Split((number, number)))
            for size in (1, 3, 7, 199, 1000):
                reader, found = feed(bank), list[int]()
                while len(found) < 200:
                    assert await reader.ready()
                    page = reader.take(size)
                    assert 1 <= len(page) <= size
                    found += [each.position for each in page]
                    assert reader.position == found[-1]
                assert found == [*range(1, 201)]

    run(main())


def test_who_waits_is_woken_by_the_next_event(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)
            for number in range(1, 20):
                waiting = asyncio.ensure_future(reader.ready())
                await turns()
                assert not waiting.done()
                await bank.get(Account, "a").send(Deposit(number))
                assert await waiting
                assert values(reader.take(10)) == [Deposited(number)]

    run(main())


def test_who_filters_it_out_is_not_woken(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank, events=["Withdrawn"])
            waiting = asyncio.ensure_future(reader.ready())
            await turns()
            other = feed(bank)
            for number in range(10):
                await bank.get(Account, "a").send(Deposit(number))
            await until(other, 10)
            await turns()
            assert not waiting.done()
            await bank.get(Account, "a").send(Withdraw(1))
            assert await waiting
            assert [each.position for each in reader.take(10)] == [11]

    run(main())


def test_a_command_without_events_wakes_nobody(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)
            waiting = asyncio.ensure_future(reader.ready())
            await bank.get(Account, "a").send(Look())
            await turns()
            assert not waiting.done()
            reader.close()
            assert not await waiting

    run(main())


def test_feeds_go_their_own_ways(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            readers = [feed(bank, kinds=["account"] if number % 2 else None) for number in range(20)]
            reading = [asyncio.create_task(until(each, 3)) for each in readers]
            await turns()
            for number in (1, 2, 3):
                await bank.get(Account, "a").send(Deposit(number))
            for each in await asyncio.gather(*reading):
                assert values(each) == [Deposited(1), Deposited(2), Deposited(3)]

    run(main())


def test_two_may_wait_at_one_feed_and_one_give_up(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)
            first, second = asyncio.ensure_future(reader.ready()), asyncio.ensure_future(reader.ready())
            await turns()
            first.cancel()
            await turns()
            await bank.get(Account, "a").send(Deposit(1))
            assert await second
            assert first.cancelled()
            assert len(reader.take(5)) == 1

    run(main())


def test_what_waits_is_counted_and_the_oldest_can_be_left_out(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)
            for number in range(10):
                await bank.get(Account, "a").send(Deposit(number))
            assert await reader.ready()
            assert reader.pending() == 10
            assert reader.drop(4) == 4
            assert reader.position == 4
            assert reader.pending() == 6
            assert [each.position for each in reader.take(2)] == [5, 6]
            assert reader.drop(100) == 4
            assert (reader.pending(), reader.position, reader.take(5)) == (0, 10, [])

    run(main())


def test_a_closed_feed_has_ended(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)
            waiting = asyncio.ensure_future(reader.ready())
            await turns()
            reader.close()
            reader.close()
            assert not await waiting
            await bank.get(Account, "a").send(Deposit(1))
            assert not await reader.ready()
            assert (reader.take(5), reader.pending(), reader.drop(5)) == ([], 0, 0)

    run(main())


def test_a_stop_ends_feeds_and_a_start_does_not_bring_them_back(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        async with bank:
            waits, idle = feed(bank), feed(bank)
            waiting = asyncio.ensure_future(waits.ready())
            await turns()
        assert not await waiting
        assert not await idle.ready()
        async with bank:
            await bank.get(Account, "a").send(Deposit(1))
            assert not await waits.ready()
            assert waits.take(5) == idle.take(5) == []

    run(main())


def test_a_feed_goes_on_after_a_restart_from_where_the_last_one_stood(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        bank = engine(ego.LogStore(tmp_path / "bank.ego"))
        async with bank:
            await fill(bank)
            reader = feed(bank)
            assert values(await until(reader, 2)) == EVERYTHING[:2]
            after, store_id = reader.position, bank._native.store_id()  # pyright: ignore[reportPrivateUsage]
        async with bank:
            assert bank._native.store_id() == store_id  # pyright: ignore[reportPrivateUsage]
            assert values(await until(feed(bank, after), 4)) == EVERYTHING[2:]

    run(main())


def test_an_event_of_no_registered_kind_says_so_when_it_is_looked_at(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await fill(bank)
        async with ego.Engine("bank", store, behaviors=[Person]) as bank:
            taken = await until(feed(bank), 6)
            assert [each.name for each in taken[:2]] == ["Deposited", "Deposited"]
            for _ in range(2):
                with pytest.raises(ego.UnknownEventError, match='no kind "account" is registered') as raised:
                    _ = taken[1].event
                assert (raised.value.name, raised.value.revision, raised.value.entity_id) == ("Deposited", 2, "a")
            assert taken[2].state == Profile("Ada")

    run(main())


def test_a_kind_that_is_registered_later_is_read_from_then_on(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await fill(bank)
        async with ego.Engine("bank", store) as bank:
            reader = feed(bank, kinds=["account"])
            with pytest.raises(ego.UnknownEventError):
                _ = (await until(reader, 1))[0].event
            bank.get(Account, "a")
            assert values(await until(reader, 1)) == [Deposited(2)]

    run(main())


def test_an_event_that_cannot_be_decoded_does_not_stop_the_others(store: Store, run: Run) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Meter]) as bank:
            await bank.get(Meter, "m").send(Deposit(1))
        async with ego.Engine("bank", store, behaviors=[WordMeter]) as bank:
            await bank.get(Person, "p").send(Rename("Ada"))
            broken, fine = await until(feed(bank), 2)
            assert fine.state == Profile("Ada")
            with pytest.raises(ego.CodecError, match="meter/m: stored event 1 cannot be decoded") as raised:
                _ = broken.event
            assert isinstance(raised.value.__cause__, Exception)
            assert (broken.entity_id, broken.position, broken.name) == ("m", 1, "Measured")

    run(main())


def test_a_poisoned_store_is_told_to_whoever_waits(store: Store, run: Run) -> None:
    async def main() -> None:
        faults = testing.Faults()
        bank = engine(testing.FaultyStore(store, faults))
        await bank.start()
        reader = feed(bank)
        await bank.get(Account, "a").send(Deposit(1))
        assert len(await until(reader, 1)) == 1
        waiting = asyncio.ensure_future(reader.ready())
        await turns()
        faults.fail("append")
        with pytest.raises(ego.OutcomeUnknownError):
            await bank.get(Account, "a").send(Deposit(2))
        assert await waiting
        with pytest.raises(ego.StorageError):
            reader.take(5)
        assert await reader.ready()
        await bank.stop()
        assert not await reader.ready()

    run(main())


def test_a_feed_belongs_to_its_loop(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="belongs to the event loop that made it"):
                    reader.take(1)

            await asyncio.to_thread(elsewhere)

    run(main())


def test_a_feed_of_another_loop_is_woken_there(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            listens = asyncio.Event()
            home = asyncio.get_running_loop()

            async def read() -> list[Any]:
                reader = feed(bank)
                waiting = asyncio.ensure_future(reader.ready())
                await turns()
                home.call_soon_threadsafe(listens.set)
                assert await waiting
                return [*reader.take(5)]

            reading = asyncio.create_task(asyncio.to_thread(asyncio.run, read()))
            await listens.wait()
            await bank.get(Account, "a").send(Deposit(1))
            assert values(await reading) == [Deposited(1)]

    run(main())


def test_a_feed_that_nobody_holds_goes_away(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            reader = feed(bank)
            await bank.get(Account, "a").send(Deposit(1))
            await until(reader, 1)
            gone = weakref.ref(reader)
            del reader
            gc.collect()
            assert gone() is None

    run(main())


def test_a_task_that_waits_at_a_feed_of_its_own_is_kept(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            found: list[Any] = []

            async def read() -> None:
                found.extend(await until(feed(bank), 1))

            reading = weakref.ref(asyncio.create_task(read()))
            await turns()
            gc.collect()
            await bank.get(Account, "a").send(Deposit(1))
            await turns()
            assert values(found) == [Deposited(1)]
            assert reading() is None or reading()

    run(main())


def test_notes_are_kept_by_name(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            native = bank._native  # pyright: ignore[reportPrivateUsage]
            await native.note("offset/b", b"2", soon=True)
            await native.note("offset/a", b"1", soon=True)
            await native.note("dead/a", b"x", soon=True)
            assert await native.notes("offset/") == [("offset/a", b"1"), ("offset/b", b"2")]
            written = native.note("offset/a", b"3", soon=False)
            await bank.get(Account, "a").send(Deposit(1))
            await written
            await native.note("offset/b", None, soon=True)
            assert await native.notes("offset/") == [("offset/a", b"3")]
            assert native.last_position() == 1
            assert values(await until(feed(bank), 1)) == [Deposited(1)]

    run(main())


def test_notes_that_nobody_waits_for_are_there_after_a_restart(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        bank = engine(ego.LogStore(tmp_path / "bank.ego"))
        async with bank:
            bank._native.note("offset/a", b"7", soon=False)  # pyright: ignore[reportPrivateUsage]
        async with bank:
            assert await bank._native.notes("") == [("offset/a", b"7")]  # pyright: ignore[reportPrivateUsage]

    run(main())


def test_the_position_at_a_time(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = testing.Clock()
        async with ego.Engine("bank", store, behaviors=[Account], clock=clock) as bank:
            native = bank._native  # pyright: ignore[reportPrivateUsage]
            await bank.get(Account, "a").send(Split((1, 2)))
            clock.advance(10.0)
            await bank.get(Account, "a").send(Deposit(3))
            second = clock.native.wall_nanos()
            assert await native.position_at(second - 5_000_000_000) == 2
            assert await native.position_at(1) == 0
            assert await native.position_at(second + 1) == 3

    run(main())


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def fork_while_waiting(path: str) -> None:
    async with engine(ego.LogStore(path) if path else ego.MemoryStore()) as bank:
        reader = feed(bank)
        waiting = asyncio.ensure_future(reader.ready())
        await turns()
        child = os.fork()
        if child == 0:
            try:
                assert await reader.ready()
                reader.take(1)
            except ego.ForkedStoreError as refused:
                os._exit(7 if refused.pid == os.getppid() else 1)
        assert exit_code(child) == 7
        await bank.get(Account, "a").send(Deposit(1))
        assert await waiting
        assert values(reader.take(1)) == [Deposited(1)]


@pytest.mark.parametrize("store", ["memory", "log"])
def test_a_forked_child_is_refused_and_the_parent_goes_on(store: str, tmp_path: Path) -> None:
    path = str(tmp_path / "bank.ego") if store == "log" else ""
    program = f"import asyncio, test_feed as t; asyncio.run(t.fork_while_waiting({path!r}))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-W", "ignore", "-c", program]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": paths})
