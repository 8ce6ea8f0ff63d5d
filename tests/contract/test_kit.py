"""The test kit does with a command what the engine does with it. `EGO_SEED=N` replays a run."""

import os
import random
from collections.abc import Awaitable
from typing import Any

from egotest.bank import Account, AccountEvent, Balance, Deposit, Deposited, Do, Look, Noted, Split, Withdraw, Withdrawn
from egotest.running import Run

import ego
from ego.testing import Engine, Given, Outcome, given

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


class Rename(ego.Command):
    name: str
    steps: int = 1


class Close(ego.Command):
    """A state of another type."""


class Profile(ego.State):
    name: str = ""


class Closed(ego.State):
    pass


class Member(ego.DurableStateBehavior[Rename | Close, Profile | Closed]):
    kind = "member"

    def initial_state(self) -> Profile | Closed:
        return Profile()

    def handle_command(
        self, command: Rename | Close, version: int, state: Profile | Closed
    ) -> tuple[Profile | Closed, int] | None | Awaitable[Any]:
        match command:
            case Close():
                return Closed(), version + 1
            case Rename("nobody"):
                raise ZeroDivisionError(version)
            case Rename("nothing"):
                return None
            case Rename(name, steps) if len(name) % 2:
                return Profile(name), version + steps
            case Rename(name, steps):
                return later(Profile(name), version + steps)


async def later(*change: Any) -> Any:
    return change


def any_renaming(rng: random.Random) -> Rename | Close:
    if rng.random() < 0.1:
        return Close()
    return Rename(
        rng.choice(["Ada", "Bea", "Cleo", "Dora", "nobody", "nothing"]), rng.choice([-1, 0, 0, 1, 1, 1, 1, 2])
    )


def test_the_kit_agrees_with_the_engine_on_durable_states(store: ego.MemoryStore | ego.LogStore, run: Run) -> None:
    seed = int(os.environ.get("EGO_SEED") or random.randrange(1_000_000))
    print(f"EGO_SEED={seed}")
    rng = random.Random(seed)

    async def main() -> dict[str, int]:
        counts = {"changed": 0, "unchanged": 0, "refused": 0}
        state, version = Profile(), 0
        async with Engine([Member], store=store) as engine:
            member = engine.get(Member, "m")
            for _ in range(COMMANDS):
                command = any_renaming(rng)
                # Each step starts from what the engine says, so that a state is arranged as often as it is reached.
                tested = given(Member, id="m") if version == 0 else given(Member, state=state, version=version, id="m")
                outcome = await tested.when(command)
                before = version
                try:
                    state, version = await member.send(command)
                except Exception as error:
                    assert vars(outcome.rejects(type(error))) == vars(error)
                    counts["refused"] += 1
                else:
                    outcome.then(state=state, version=version)
                    counts["unchanged" if version == before else "changed"] += 1
                if rng.random() < 0.02:
                    await engine.restart()
        return counts

    counts = run(main())
    print(counts)
    assert min(counts.values()) > COMMANDS // 20
