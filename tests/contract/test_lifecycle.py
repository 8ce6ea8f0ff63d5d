"""Start, stop, and what is refused outside of them."""

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Do, Gate, Look
from egotest.running import Run, turns

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store, **options: Any) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account], **options)


def test_everything_but_construction_needs_a_started_engine(store: Store, run: Run) -> None:
    async def refused(bank: ego.Engine) -> None:
        assert not bank.started
        for call in (lambda: bank.get(Account, "a"), lambda: bank.send_command("a", Look()), bank.stats):
            with pytest.raises(ego.EngineNotStartedError, match="engine 'bank' is stopped"):
                call()
        with pytest.raises(ego.EngineNotStartedError):
            await bank.entity(Account("a"))
        with pytest.raises(ego.EngineNotStartedError):
            await bank.stop()

    async def main() -> None:
        bank = engine(store)
        await refused(bank)
        async with bank:
            assert bank.started
            account = bank.get(Account, "a")
            await account.send(Deposit(1))
        await refused(bank)
        for call in (lambda: account.send(Look()), lambda: account.tell(Look()), account.state):
            with pytest.raises(ego.EngineNotStartedError):
                call()

    run(main())


def test_a_second_start_is_refused(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            with pytest.raises(ego.EgoError, match="cannot be started: it is started"):
                await bank.start()
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)

    run(main())


def test_stop_inside_the_block_is_fine(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await bank.get(Account, "a").send(Deposit(1))
            report = await bank.stop()
        assert report == ego.StopReport(finished=True, queued=0, running=0, waiting=0)

    run(main())


def test_stop_finishes_what_was_accepted(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        account = bank.get(Account, "a")
        gate = Gate()
        running = account.send(gate.command())
        await gate.reached.wait()
        queued = [account.send(Deposit(1)) for _ in range(100)]
        others = [bank.get(Account, f"b-{n}").send(Deposit(n)) for n in range(100)]
        stopping = asyncio.create_task(bank.stop())
        await turns()
        with pytest.raises(ego.EngineNotStartedError):
            _ = account.send(Deposit(1))
        assert not stopping.done()
        gate.opened.set()
        report = await stopping
        assert report.finished
        assert await running == (Balance(0), 0)
        assert [await each for each in queued] == [(Balance(n), n) for n in range(1, 101)]
        assert [await each for each in others] == [(Balance(n), 1) for n in range(100)]

    run(main())


def test_a_handler_may_send_while_the_engine_stops(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        gate = Gate()

        async def pass_on(_account: Account) -> None:
            await gate.passed()
            await bank.get(Account, "b").send(Deposit(3))
            await bank.send_command("b", Deposit(4))

        answer = bank.get(Account, "a").send(Do(pass_on))
        await gate.reached.wait()
        stopping = asyncio.create_task(bank.stop())
        await turns()
        gate.opened.set()
        assert (await stopping).finished
        assert await answer == (Balance(0), 0)
        async with bank:
            assert await bank.get(Account, "b").state() == (Balance(7), 2)

    run(main())


def test_stop_reports_what_it_left(store: Store, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        account = bank.get(Account, "a")
        gate = Gate()
        running = account.send(gate.command(), timeout=None)
        await gate.reached.wait()
        queued = [account.send(Deposit(1), timeout=None) for _ in range(3)]
        report = await bank.stop(timeout=0.01)
        assert not report.finished
        assert (report.queued, report.running) == (3, 1)
        with pytest.raises(ego.CommandTimeoutError) as caught:
            await running
        assert caught.value.outcome == "unknown"
        for each in queued:
            with pytest.raises(ego.CommandTimeoutError) as caught:
                await each
            assert caught.value.outcome == "not_run"
        gate.opened.set()
        await turns()
        async with bank:
            assert await bank.get(Account, "a").state() == (Balance(0), 0)

    with caplog.at_level(logging.WARNING, logger="ego"):
        run(main())
    assert "not everything was finished" in caplog.text


def test_an_engine_that_is_left_open_warns(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)

    with pytest.warns(ResourceWarning, match=r"<ego\.Engine 'bank' started> was not stopped"):
        run(main())
        gc.collect()


def test_a_stopped_engine_does_not_warn(store: Store, run: Run, recwarn: pytest.WarningsRecorder) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            await bank.get(Account, "a").send(Deposit(1))

    run(main())
    gc.collect()
    assert [str(each.message) for each in recwarn] == []


def test_two_engines_on_one_store_object(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store):
            with pytest.raises(ego.ConfigError, match=r"is in use by engine 'bank'.* 'other' a store of its own"):
                await ego.Engine("other", store).start()
        async with ego.Engine("other", store) as other:
            assert other.started

    run(main())


def test_stop_on_another_loop_is_refused(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:

            def elsewhere() -> None:
                with pytest.raises(ego.EngineNotStartedError, match="started on another event loop"):
                    asyncio.run(bank.stop())

            await asyncio.to_thread(elsewhere)
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)

    run(main())


def test_an_engine_whose_loop_is_gone_can_be_stopped(store: Store, run: Run) -> None:
    bank = engine(store)

    async def leave_open() -> None:
        await bank.start()
        await bank.get(Account, "a").send(Deposit(1))

    async def stop_and_start() -> None:
        with pytest.raises(ego.EngineNotStartedError):
            bank.get(Account, "a").tell(Deposit(1))
        assert (await bank.stop()).finished
        async with bank:
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(2), 2)

    run(leave_open())
    run(stop_and_start())


def test_a_stop_that_is_cancelled_stops_all_the_same(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        await bank.start()
        gate = Gate()
        running = bank.get(Account, "a").send(gate.command())
        await gate.reached.wait()
        stopping = asyncio.create_task(bank.stop(timeout=None))
        await turns()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        with pytest.raises(ego.CommandTimeoutError):
            await running
        async with bank:
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(1), 1)

    run(main())


def test_an_engine_moves_to_the_loop_that_starts_it(store: Store, run: Run) -> None:
    bank = engine(store)

    async def main(expected: int) -> None:
        async with bank:
            assert await bank.get(Account, "a").send(Deposit(1)) == (Balance(expected), expected)

    run(main(1))
    run(main(2))


def test_a_start_that_is_cancelled_lets_go_of_the_store(store: Store, run: Run) -> None:
    async def main() -> None:
        bank = engine(store)
        starting = asyncio.create_task(bank.start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not bank.started
        while True:
            try:
                await bank.start()
            except ego.ConfigError:
                await asyncio.sleep(0)
            else:
                break
        await bank.get(Account, "a").send(Deposit(1))
        await bank.stop()

    run(main())


@pytest.mark.parametrize("loop", ["first", "second"])
def test_a_path_that_holds_no_store(run: Run, tmp_path: Path, loop: str) -> None:
    path = tmp_path / "bank.ego"
    if loop == "first":
        path.write_text("a file")
    else:
        path.mkdir()
        (path / "holiday.jpg").write_text("a picture")

    async def main() -> None:
        bank = engine(ego.LogStore(path))
        for _ in range(2):
            with pytest.raises(ego.StoreFormatError) as caught:
                await bank.start()
            assert caught.value.path is not None
            assert str(path) in str(caught.value)
            assert isinstance(caught.value, OSError)
            assert not bank.started

    run(main())
    assert path.exists()


def test_a_path_without_its_parent(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        bank = engine(ego.LogStore(tmp_path / "missing" / "bank.ego"))
        with pytest.raises(ego.StorageError, match="missing"):
            await bank.start()
        assert not bank.started
        (tmp_path / "missing").mkdir()
        async with bank:
            assert bank.started

    run(main())


def test_counters(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            before = bank.stats()
            await bank.get(Account, "a").send(Deposit(1))
            await bank.get(Account, "b").send(Deposit(1))
            after = bank.stats()
            assert {type(value) for value in after.values()} == {int}
            assert after["position"] - before["position"] == 2
            assert after["entities"] - before["entities"] == 2

    run(main())
