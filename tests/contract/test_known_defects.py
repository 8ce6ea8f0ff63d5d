"""Defects that were seen in an engine of this family, each shown to be absent here by the story in which it showed."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, InsufficientFundsError, Look, Noted, Split, Withdraw
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore


def engine(store: Store, **options: Any) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account], **options)


@pytest.mark.parametrize("entities", [2, 10, 1_000])
def test_defect_1_a_few_entities_with_as_many_callers_make_progress(store: Store, run: Run, entities: int) -> None:
    async def caller(bank: ego.Engine, number: int) -> tuple[Balance, int]:
        account = bank.get(Account, f"account-{number}")
        answer = await account.state()
        for _ in range(20):
            answer = await account.send(Deposit(number))
        return answer

    async def main() -> None:
        async with engine(store) as bank:
            answers = await asyncio.gather(*(caller(bank, number) for number in range(entities)))
            assert answers == [(Balance(20 * number), 20) for number in range(entities)]

    run(main())


def test_defect_2_a_batch_answers_each_caller_and_stores_each_command_once(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            # A refusal in the middle of a batch, and commands without events, take nobody else's answer.
            sent = [
                account.send(Withdraw(10**9) if n % 7 == 3 else Look() if n % 5 == 4 else Deposit(n))
                for n in range(500)
            ]
            answers = await asyncio.gather(*sent, return_exceptions=True)
            total = revision = 0
            for n, answer in enumerate(answers):
                if n % 7 == 3:
                    assert isinstance(answer, InsufficientFundsError)
                    assert answer.balance == total
                    continue
                if n % 5 != 4:
                    total, revision = total + n, revision + 1
                assert answer == (Balance(total), revision)
            await bank.stop()
            await bank.start()
            assert await account.state() == (Balance(total), revision)

    run(main())


def test_defect_9_after_a_failed_event_write_the_entity_lives(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = ego.LogStore(tmp_path / "s", max_unit_bytes=4096)
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(1))
            with pytest.raises(ego.MessageTooLargeError):
                await account.send(Do(lambda _: Noted("x" * 5000)))
            assert await account.send(Deposit(2)) == (Balance(3), 2)

    run(main())


def test_defect_10_a_handler_that_blows_up_is_answered_at_once(store: Store, run: Run) -> None:
    class Blast(BaseException):
        pass

    def blow(_: Account) -> Deposited:
        raise Blast

    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            start = time.perf_counter()
            with pytest.raises(Blast):
                await account.send(Do(blow), timeout=30)
            assert time.perf_counter() - start < 5
            assert await account.send(Deposit(2)) == (Balance(2), 1)

    run(main())


@pytest.mark.parametrize("batch_size", [1, 7, 33, 500])
def test_defect_4_two_event_commands_and_odd_pages_skip_nothing(store: Store, run: Run, batch_size: int) -> None:
    """Events that are written while a page is read, and pages that end between the two events of a command."""
    seen = list[tuple[str, int]]()

    class Pages:
        def handle_batch(self, envelopes: list[ego.EventEnvelope[Any]]) -> None:
            assert 1 <= len(envelopes) <= batch_size
            seen.extend((envelope.entity_id, envelope.revision) for envelope in envelopes)

    async def main() -> None:
        async with engine(store) as bank:
            await bank.add_projection("seen", Pages(), batch_size=batch_size)
            accounts = [bank.get(Account, f"a-{number}") for number in range(10)]
            for _ in range(30):
                await asyncio.gather(*(account.send(Split((1, 2))) for account in accounts))
            await bank.projection("seen").wait_for(accounts[0], 60)
        assert len(seen) == 600
        for account in accounts:
            assert [revision for entity_id, revision in seen if entity_id == account.id] == list(range(1, 61))

    run(main())


def test_defect_5_a_start_offset_makes_progress(store: Store, run: Run) -> None:
    seen = list[int]()

    def handle(envelope: ego.EventEnvelope[Any]) -> None:
        seen.append(envelope.position)

    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            for _ in range(20):
                await account.send(Deposit(1))
            await bank.add_projection("seen", handle, start=10, batch_size=3)
            await bank.projection("seen").wait_for(account, 20)
        assert seen == list(range(11, 21))

    run(main())


def test_defect_6_a_start_from_a_date_takes_what_is_on_its_side(store: Store, run: Run) -> None:
    times, seen = list[datetime](), list[int]()

    def note_time(envelope: ego.EventEnvelope[Any]) -> None:
        times.append(envelope.time)

    def handle(envelope: ego.EventEnvelope[Any]) -> None:
        seen.append(envelope.position)

    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await bank.add_projection("times", note_time)
            for _ in range(20):
                await account.send(Deposit(1))
            await bank.projection("times").wait_for(account, 20)
            date = times[10]
            await bank.add_projection("seen", handle, start=date)
            await bank.projection("seen").wait_for(account, 20)
        assert seen == [number for number, time in enumerate(times, 1) if time >= date]
        assert seen[-1] == 20

    run(main())


def test_defect_11_a_business_error_keeps_its_type_and_its_facts(store: Store, run: Run) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(5))
            with pytest.raises(InsufficientFundsError) as raised:
                await account.send(Withdraw(6))
            assert (raised.value.asked, raised.value.balance) == (6, 5)
            assert raised.traceback[-1].name == "handle_command"

    run(main())


@pytest.mark.parametrize("timeout", [0, 0.0, -1, float("nan")])
def test_defect_18_a_zero_interval_is_an_error_and_no_crash(store: Store, run: Run, timeout: float) -> None:
    with pytest.raises(ego.ConfigError, match="mailbox_capacity"):
        engine(store, mailbox_capacity=0)

    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            with pytest.raises(ValueError, match="timeout"):
                _ = account.send(Deposit(1), timeout=timeout)
            with pytest.raises(ValueError, match="timeout"):
                await bank.stop(timeout=timeout)
            assert await account.send(Deposit(1)) == (Balance(1), 1)

    run(main())
