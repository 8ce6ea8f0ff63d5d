"""Entities that are idle or too many leave memory, and nobody who sends to them can tell."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, ClassVar

import pytest
from egotest.bank import Account, AccountCommand, Balance, Deposit, Do, Gate, InsufficientFundsError, Split, Withdraw
from egotest.running import Run, turns

import ego
from ego.testing import Clock, Faults, FaultyStore

Store = ego.LogStore | ego.MemoryStore
HOUR = 3_600.0


def bank(store: Store, clock: Clock | None = None, *, resident_limit: int | None = None) -> ego.Engine:
    """An engine whose accounts leave memory after a minute, if it has a clock."""
    after = 60.0 if clock is not None else None
    behaviors: list[type[Profiles] | ego.Kind[Any, Any]] = [ego.Kind(Account, passivate_after=after), Profiles]
    return ego.Engine("bank", store, behaviors=behaviors, resident_limit=resident_limit, clock=clock)


class Rename(ego.Command):
    name: str


class Profile(ego.State):
    name: str = ""


class Profiles(ego.DurableStateBehavior[Rename, Profile]):
    kind = "profile"

    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: Rename, version: int, state: Profile) -> tuple[Profile, int]:
        return Profile(command.name), version + 1


def test_an_idle_entity_leaves_memory_and_its_next_command_finds_everything(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            account = engine.get(Account, "a")
            assert await account.send(Deposit(5)) == (Balance(5), 1)
            clock.advance(59.9)
            assert engine.is_resident(Account, "a")
            clock.advance(0.1)
            assert not engine.is_resident(Account, "a")
            assert (engine.stats()["resident"], engine.stats()["passivated"]) == (0, 1)
            assert await account.send(Deposit(2)) == (Balance(7), 2)
            assert engine.is_resident(Account, "a")
            assert engine.stats()["resident"] == 1

    run(main())


def test_defect_7_a_passivated_entity_is_found(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            await engine.entity(Account("declared"))
            await engine.get(Account, "stored").send(Deposit(5))
            clock.advance(60)
            assert engine.stats()["resident"] == 0
            assert await engine.send_command("declared", Deposit(1)) == (Balance(1), 1)
            assert await engine.send_command("stored", Deposit(1)) == (Balance(6), 2)

    run(main())


def test_every_command_resets_the_timer(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            account = engine.get(Account, "a")
            for _ in range(5):
                await account.send(Deposit(1))
                clock.advance(40)
                assert engine.is_resident(Account, "a")
            assert engine.stats()["passivated"] == 0
            clock.advance(20)
            assert not engine.is_resident(Account, "a")

    run(main())


def test_an_entity_may_have_a_time_of_its_own(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            patient = await engine.entity(Account("patient"), passivate_after=HOUR)
            hasty = await engine.entity(Account("hasty"), passivate_after=1.0)
            steady = await engine.durable_state_entity(Profiles("p"))
            clock.advance(1)
            assert [engine.is_resident(Account, name) for name in ("patient", "hasty")] == [True, False]
            assert await hasty.send(Deposit(1)) == (Balance(1), 1)
            clock.advance(1)
            assert not engine.is_resident(Account, "hasty")
            clock.advance(HOUR - 2)
            assert not engine.is_resident(Account, "patient")
            assert engine.is_resident(Profiles, "p")
            assert (patient.id, steady.id) == ("patient", "p")

    run(main())


def test_a_declared_entity_is_made_of_its_object_again(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            mine = Account("a")
            account = await engine.entity(mine)
            clock.advance(60)
            assert not engine.is_resident(Account, "a")
            seen: list[Account] = []

            def look(behavior: Account) -> None:
                seen.append(behavior)

            await account.send(Do(look))
            assert seen == [mine]

    run(main())


def test_an_entity_with_work_under_way_stays(store: Store, run: Run) -> None:
    async def main() -> None:
        clock, gate = Clock(), Gate()
        async with bank(store, clock, resident_limit=1) as engine:
            account = engine.get(Account, "a")
            working = account.send(gate.command(), timeout=None)
            waiting = account.send(Deposit(3), timeout=None)
            await gate.reached.wait()
            clock.advance(HOUR)
            await engine.get(Account, "b").send(Deposit(1))
            assert engine.is_resident(Account, "a")
            gate.opened.set()
            assert await working == (Balance(0), 0)
            assert await waiting == (Balance(3), 1)
            clock.advance(60)
            assert engine.stats()["resident"] == 0

    run(main())


def test_an_entity_that_is_not_durable_yet_stays(store: Store, run: Run) -> None:
    async def main() -> None:
        async with bank(store, resident_limit=1) as engine:
            accounts = [engine.get(Account, f"a-{number}") for number in range(50)]
            answers = [account.send(Deposit(number), timeout=None) for number, account in enumerate(accounts)]
            again = [account.send(Deposit(1), timeout=None) for account in accounts]
            shown = await asyncio.gather(*answers, *again, return_exceptions=True)
            assert shown[:50] == [(Balance(number), 1) for number in range(50)]
            assert shown[50:] == [(Balance(number + 1), 2) for number in range(50)]
            await turns()
            assert engine.stats()["resident"] == 1

    run(main())


def test_no_more_than_the_limit_stay_in_memory(store: Store, run: Run) -> None:
    async def main() -> None:
        async with bank(store, resident_limit=10) as engine:
            for number in range(100):
                await engine.get(Account, f"a-{number}").send(Deposit(number))
                assert engine.stats()["resident"] <= 10
            held = [number for number in range(100) if engine.is_resident(Account, f"a-{number}")]
            stats = engine.stats()
            assert (len(held), stats["resident"], stats["passivated"]) == (10, 10, 90)
            for number in range(100):
                assert await engine.get(Account, f"a-{number}").state() == (Balance(number), 1)

    run(main())


def test_what_is_used_all_the_time_is_not_driven_out_by_what_is_used_once(store: Store, run: Run) -> None:
    async def main() -> None:
        async with bank(store, resident_limit=10) as engine:
            for number in range(500):
                for favourite in range(3):
                    await engine.get(Account, f"favourite-{favourite}").send(Deposit(1))
                await engine.get(Account, f"a-{number}").send(Deposit(1))
            assert all(engine.is_resident(Account, f"favourite-{favourite}") for favourite in range(3))
            assert engine.stats()["passivated"] == 500 + 3 - 10

    run(main())


def test_a_reference_follows_its_entity_out_of_memory_and_back(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            early, late = engine.get(Account, "a"), engine.get(Account, "a")
            await early.send(Deposit(1))
            clock.advance(60)
            other = engine.get(Account, "a")
            answers = [ref.send(Deposit(1)) for ref in (late, early, other, late)]
            assert [await answer for answer in answers] == [(Balance(n), n) for n in (2, 3, 4, 5)]
            assert engine.stats()["resident"] == 1
            assert early == late == other

    run(main())


def test_command_ids_and_expected_revisions_outlive_passivation(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        async with bank(store, clock) as engine:
            account = engine.get(Account, "a")
            assert await account.send(Deposit(5), command_id="once") == (Balance(5), 1)
            await account.send(Deposit(1))
            clock.advance(60)
            assert await account.send(Deposit(5), command_id="once") == (Balance(5), 1)
            clock.advance(60)
            with pytest.raises(ego.RevisionConflictError) as caught:
                await account.send(Deposit(1), expected_revision=1)
            assert (caught.value.expected, caught.value.actual) == (1, 2)
            assert await account.send(Deposit(1), expected_revision=2) == (Balance(7), 3)

    run(main())


def test_a_durable_state_is_read_again(store: Store, run: Run) -> None:
    async def main() -> None:
        async with bank(store, resident_limit=1) as engine:
            for number in range(1, 4):
                for name in ("p", "q"):
                    answer = await engine.get(Profiles, name).send(Rename(f"{name}-{number}"))
                    assert answer == (Profile(f"{name}-{number}"), number)
            assert engine.stats()["passivated"] == 5

    run(main())


def test_an_entity_leaves_by_the_loops_own_time(store: Store, run: Run) -> None:
    class Passing(Account):
        kind = "passing"
        gone: ClassVar[list[str]] = []

        def __del__(self) -> None:
            self.gone.append(self.id)

    async def main() -> None:
        kind = ego.Kind(Passing, passivate_after=0.05)
        async with ego.Engine("bank", store, behaviors=[kind]) as engine:
            await engine.get(Passing, "a").send(Deposit(1))
            while engine.is_resident(Passing, "a"):
                await turns()
            assert Passing.gone == ["a"]
            assert await engine.get(Passing, "a").state() == (Balance(1), 1)

    run(main())


def test_an_object_that_sends_while_it_leaves_is_heard(store: Store, run: Run) -> None:
    class Parting(Account):
        kind = "parting"
        heir: ClassVar[ego.EntityRef[AccountCommand, Balance] | None] = None

        def __del__(self) -> None:
            if self.heir is not None and self.id != "heir":
                self.heir.tell(Deposit(1))

    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Parting], resident_limit=1) as engine:
            heir = engine.get(Parting, "heir")
            Parting.heir = heir
            for number in range(20):
                await engine.get(Parting, f"a-{number}").send(Deposit(1))
            Parting.heir = None
            await turns()
            _, revision = await heir.state()
            assert revision >= 19

    run(main())


def test_nothing_is_left_of_a_name_that_was_asked_for_only(store: Store, run: Run) -> None:
    async def main() -> None:
        async with bank(store) as engine:
            for number in range(100):
                engine.get(Account, f"a-{number}")
                assert not engine.is_resident(Account, f"a-{number}")
            with pytest.raises(ego.EntityNotFoundError):
                _ = engine.send_command("a-1", Deposit(1))
            assert engine.stats()["resident"] == 0

    run(main())


def test_an_entity_whose_write_failed_leaves_memory_after_the_next_start(store: Store, run: Run) -> None:
    async def main() -> None:
        clock, faults = Clock(), Faults()
        kind = ego.Kind(Account, passivate_after=60.0)
        engine = ego.Engine("bank", FaultyStore(store, faults), behaviors=[kind], clock=clock)
        await engine.start()
        account = engine.get(Account, "a")
        faults.fail("append")
        with pytest.raises(ego.OutcomeUnknownError):
            await account.send(Deposit(1))
        await engine.stop()
        await engine.start()
        assert await account.state() == (Balance(0), 0)
        clock.advance(61.0)
        assert not engine.is_resident(Account, "a")
        await engine.stop()

    run(main())


def test_a_stop_and_a_start_begin_with_nobody_in_memory(store: Store, run: Run) -> None:
    async def main() -> None:
        clock = Clock()
        engine = bank(store, clock, resident_limit=5)
        account = None
        for round_ in range(1, 4):
            async with engine:
                assert engine.stats()["resident"] == 0
                account = account or engine.get(Account, "a")
                assert await account.send(Deposit(1)) == (Balance(round_), round_)
                for number in range(10):
                    await engine.get(Account, f"b-{number}").send(Deposit(1))
                assert engine.stats()["resident"] == 5
                clock.advance(HOUR)
                assert engine.stats()["resident"] == 0
                assert await account.state() == (Balance(round_), round_)

    run(main())


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "10", 2**31])
def test_a_limit_that_is_none_is_refused(limit: object) -> None:
    with pytest.raises(ego.ConfigError, match="resident_limit"):
        ego.Engine("bank", ego.MemoryStore(), resident_limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [None, 1, 4])
def test_commands_among_passivations_come_to_the_same_sums(
    store: Store, run: Run, seed: int, limit: int | None
) -> None:
    """Names are few, commands many and concurrent; a plain sum is kept beside them."""

    async def main() -> None:
        chance, clock = random.Random(seed), Clock()
        sums: dict[str, tuple[int, int]] = {f"a-{number}": (0, 0) for number in range(12)}
        refs: dict[str, list[ego.EntityRef[AccountCommand, Balance]]] = {name: [] for name in sums}
        due: list[tuple[Awaitable[tuple[Balance, int]], tuple[int, int] | None]] = []
        async with bank(store, clock, resident_limit=limit) as engine:
            for step in range(600):
                name = chance.choice(list(sums))
                amount, revision = sums[name]
                ref = engine.get(Account, name) if chance.random() < 0.5 or not refs[name] else refs[name][0]
                refs[name] = [ref, *refs[name]][:3]
                given = chance.randint(1, 9)
                match chance.choice(["deposit", "split", "refused", "once", "state", "time", "await", "turns"]):
                    case "deposit":
                        sums[name] = (amount + given, revision + 1)
                        due.append((ref.send(Deposit(given), timeout=None), sums[name]))
                    case "split":
                        sums[name] = (amount + 3 * given, revision + 3)
                        due.append((ref.send(Split((given,) * 3), timeout=None), sums[name]))
                    case "refused":
                        due.append((ref.send(Withdraw(10**9), timeout=None), None))
                    case "once":
                        sums[name] = (amount + given, revision + 1)
                        for _ in range(2):
                            answer = ref.send(Deposit(given), timeout=None, command_id=f"c-{step}")
                            due.append((answer, sums[name]))
                    case "state":
                        due.append((ref.state(timeout=None), sums[name]))
                    case "time":
                        clock.advance(chance.choice([10.0, 61.0]))
                    case "await":
                        await check_all(due)
                    case _:
                        await turns(2)
            await check_all(due)
            assert engine.stats()["passivated"] > 0
            clock.advance(HOUR)
            assert engine.stats()["resident"] == 0
            for name, (amount, revision) in sums.items():
                assert await engine.get(Account, name).state() == (Balance(amount), revision)

    async def check_all(due: list[tuple[Awaitable[tuple[Balance, int]], tuple[int, int] | None]]) -> None:
        shown = await asyncio.gather(*(answer for answer, _ in due), return_exceptions=True)
        for found, (_, expected) in zip(shown, due, strict=True):
            if expected is None:
                assert isinstance(found, InsufficientFundsError), f"seed {seed}"
            else:
                assert found == (Balance(expected[0]), expected[1]), f"seed {seed}"
        due.clear()

    run(main())
