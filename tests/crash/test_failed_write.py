"""A write or a sync that fails: nothing more is acknowledged, and a restart goes on from what the disk holds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from egotest.bank import Account, Balance, Deposit, Withdraw
from egotest.running import Run

import ego


def break_segment(store: Path, device: str) -> None:
    """Puts a device in the place of every open segment: /dev/full fails each write, /dev/null each sync."""
    broken = os.open(device, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd", name)
        if link.exists() and link.resolve().parent == store.resolve() and link.resolve().suffix == ".seg":
            os.dup2(broken, int(name), inheritable=False)
    os.close(broken)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_after_a_failed_write_nothing_is_acknowledged_until_a_restart(tmp_path: Path, run: Run, device: str) -> None:
    path = tmp_path / "bank.ego"

    async def main() -> None:
        bank = ego.Engine("bank", ego.LogStore(path), behaviors=[Account])
        await bank.start()
        account, other = bank.get(Account, "a"), bank.get(Account, "b")
        assert await account.send(Deposit(100)) == (Balance(100), 1)
        assert await other.send(Deposit(7)) == (Balance(7), 1)
        break_segment(path, device)
        in_flight = [account.send(Deposit(1)), account.send(Deposit(2)), account.send(Withdraw(10_000))]
        answers = await asyncio.gather(*in_flight, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ego.OutcomeUnknownError] * 3
        assert "Stop and start" in str(answers[0])
        with pytest.raises(ego.StorePoisonedError):
            await other.send(Deposit(1))
        assert await account.state() == (Balance(100), 1)
        assert await other.state() == (Balance(7), 1)
        report = await bank.stop()
        assert isinstance(report.failure, ego.StorePoisonedError)
        assert not report.finished
        await bank.start()
        assert await other.state() == (Balance(7), 1)
        state, revision = await account.state()
        assert (state.amount, revision) in {(100, 1), (101, 2), (103, 3)}
        assert await account.send(Deposit(1)) == (Balance(state.amount + 1), revision + 1)
        await bank.stop()

    run(main())
