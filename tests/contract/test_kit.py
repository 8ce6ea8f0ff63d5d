"""The test kit does with a command what the engine does with it. `EGO_SEED=N` replays a run."""

import os
import random
from typing import Any

from egotest.bank import Account, AccountEvent, Balance, Deposit, Deposited, Do, Look, Noted, Split, Withdraw, Withdrawn
from egotest.running import Run

import ego
from ego.testing import Given, Outcome, given

COMMANDS = 300


def any_command(rng: random.Random) -> tuple[Any, tuple[AccountEvent, ...]]:
    """A command, and the events that it gives if it is accepted."""
    amount, amounts = rng.randrange(1, 20), tuple(rng.randrange(5) for _ in range(rng.randrange(4)))

    async def later() -> Deposited:
        return Deposited(amount)

    choices: list[tuple[Any, tuple[AccountEvent, ...]]] = [
        (Deposit(amount), (Deposited(amount),)),
        (Withdraw(2 * amount), (Withdrawn(2 * amount),)),
        (Split(amounts, rng.random() < 0.5), tuple(map(Deposited, amounts))),
        (Look(rng.random() < 0.5), ()),
        (Do(lambda account: Noted(account.id)), (Noted("a"),)),
        (Do(lambda _: later()), (Deposited(amount),)),
        (Do(lambda _: [Withdrawn(amount), Deposited(1)]), (Withdrawn(amount), Deposited(1))),
        (Do(lambda _: [Deposited(amount), None]), ()),
        (Do(lambda _: 1 // 0), ()),
    ]
    return rng.choice(choices)


def test_the_kit_agrees_with_the_engine(store: ego.MemoryStore | ego.LogStore, run: Run) -> None:
    seed = int(os.environ.get("EGO_SEED") or random.randrange(1_000_000))
    print(f"EGO_SEED={seed}")
    rng = random.Random(seed)

    async def main() -> dict[str, int]:
        counts = {"accepted": 0, "refused": 0}
        tested: Given[Any, AccountEvent, Balance] | Outcome[Any, AccountEvent, Balance] = given(Account, id="a")
        async with ego.Engine("bank", store, behaviors=[Account]) as engine:
            account = engine.get(Account, "a")
            for _ in range(COMMANDS):
                command, events = any_command(rng)
                outcome = await tested.when(command)
                try:
                    state, revision = await account.send(command)
                except Exception as error:
                    assert vars(outcome.rejects(type(error))) == vars(error)
                    counts["refused"] += 1
                else:
                    tested = outcome.then(*events, state=state, revision=revision)
                    counts["accepted"] += 1
        return counts

    counts = run(main())
    print(counts)
    assert min(counts.values()) > COMMANDS // 10
