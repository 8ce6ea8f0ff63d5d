"""The test kit does with a command what the engine does with it. `EGO_SEED=N` replays a run."""

import os
import random
from typing import Any

from egotest.bank import Account, AccountEvent, Balance, Deposit, Deposited, Do, Look, Noted, Split, Withdraw, Withdrawn
from egotest.people import Act, Person, Profile, Rename, Retired
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


def any_change(rng: random.Random) -> Rename | Act:
    """A command of a durable state: changes, no changes, and every way to be refused."""
    name, step = rng.choice(["Ada", "Bea", "Cleo"]), rng.choice([-1, 0, 1, 1, 2])

    async def later(*change: Any) -> Any:
        return change

    choices: list[Rename | Act] = [
        Rename(name),
        Act(lambda version, _: (Profile(name), version + step)),
        Act(lambda version, _: later(Profile(name, extra=[version]), version + step)),
        Act(lambda version, state: (state, version)),
        Act(lambda version, _: (Retired(name), version + 1)),
        Act(lambda _version, _state: None),
        Act(lambda _version, state: state),
        Act(lambda _version, state: (state, True)),
        Act(lambda _version, _state: 1 // 0),
    ]
    return rng.choice(choices)


def test_the_kit_agrees_with_the_engine_on_durable_states(store: ego.MemoryStore | ego.LogStore, run: Run) -> None:
    seed = int(os.environ.get("EGO_SEED") or random.randrange(1_000_000))
    print(f"EGO_SEED={seed}")
    rng = random.Random(seed)

    async def main() -> dict[str, int]:
        counts = {"changed": 0, "unchanged": 0, "refused": 0}
        async with Engine([Person], store=store) as engine:
            person = engine.get(Person, "ada")
            state, version = await person.state()
            for _ in range(COMMANDS):
                command = any_change(rng)
                tested = given(Person, state=state, version=version, id="ada") if version else given(Person, id="ada")
                outcome, before = await tested.when(command), version
                try:
                    state, version = await person.send(command)
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
