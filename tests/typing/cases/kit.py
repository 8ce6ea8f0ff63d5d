"""What a checker knows about given, when, then, and about the engine for tests."""

from bank import Account, Balance, Deposit, Deposited, Withdraw, Withdrawn

import ego
from ego.testing import Clock, Engine, Engines, Faults, FaultyStore, Gate, given


class Rename(ego.Command):
    name: str


class Profile(ego.State):
    name: str = ""


class Member(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: Rename, version: int, state: Profile) -> tuple[Profile, int]:
        return Profile(command.name), version + 1


class OverdrawnError(Exception):
    missing: int


def test_deposits(ego_engine: Engines, ego_log: ego.LogStore, ego_clock: Clock) -> None:
    engine = ego_engine(Account, ego.Kind(Member), store=ego_log, clock=ego_clock)

    async def story() -> int:
        return (await engine.get(Account, "a").send(Deposit(1)))[1]

    reveal_type(engine.run(story()))  # is: int
    ego_engine(Balance)  # error


async def main() -> None:
    reveal_type(given(Account))  # is: Given[Deposit | Withdraw, Deposited | Withdrawn, Balance]
    outcome = given(Account, Deposited(5), Withdrawn(1), id="acct-1").when(Deposit(2))
    reveal_type(outcome)  # is: Outcome[Deposit | Withdraw, Deposited | Withdrawn, Balance]
    reveal_type(await outcome)  # is: Outcome[Deposit | Withdraw, Deposited | Withdrawn, Balance]
    then = outcome.then(Deposited(2), state=Balance(6), revision=3)
    reveal_type(then)  # is: Outcome[Deposit | Withdraw, Deposited | Withdrawn, Balance]
    reveal_type(then.when(Withdraw(9)).rejects(OverdrawnError, "9", missing=3))  # is: OverdrawnError
    reveal_type(given(ego.Kind(Account), Deposited(5)))  # is: Given[Deposit | Withdraw, Any, Balance]

    member = given(Member, state=Profile("Ada"), version=3)
    reveal_type(member)  # is: Given[Rename, Never, Profile]
    member.when(Rename("Bea")).then(state=Profile("Bea"), version=4)
    given(ego.Kind(Member), state=Profile("Ada")).when(Rename("Ada")).then()

    given(Account, clock=Clock()).when(Deposit(1), command_id="one", metadata={"user": "ada"}).then(Deposited(1))

    clock, faults, gate = Clock(), Faults(), Gate()
    async with Engine([Account, ego.Kind(Member)], clock=clock, faults=faults, mailbox_capacity=5) as engine:
        account = engine.get(Account, "a")
        reveal_type(await account.send(Deposit(1)))  # is: tuple[Balance, int]
        reveal_type(await engine.restart())  # is: StopReport
        await engine.until_queued(account, 2)
        await engine.until_passivated(account)
        await engine.settled()
    clock.advance(1)
    reveal_type(clock.now())  # is: datetime
    faults.fail("read", OSError(5, "no"), entity=(Account, "a"), times=None)
    faults.refuse("append", entity=("account", "a"), times=2)
    with faults.hold("append") as held:
        await held.reached()
    reveal_type(faults.unused())  # is: list[str]
    await gate.passed()
    ego.Engine("bank", FaultyStore(ego.MemoryStore(), faults), state_store=FaultyStore(ego.LogStore("x"), faults))

    given(Account).when(Deposit(1), metadata={"user": 1})  # error
    clock.advance("1")  # error
    faults.fail("close")  # error
    faults.refuse("read")  # error
    faults.hold("append", entity="a")  # error
    Engine([Account], store="memory")  # error
    given(Account, Balance(1))  # error
    given(Account, state=Balance(1))  # error
    given(Account).when(Deposited(1))  # error
    outcome.then(Deposit(1))  # error
    outcome.then(state=5)  # error
    outcome.rejects(KeyboardInterrupt)  # error
    given(Member, Profile("Ada"))  # error
    given(Member, state="Ada")  # error
    member.when(Rename("Bea")).then(Profile("Bea"))  # error
    member.when(Rename("Bea")).then(state=Balance(1))  # error
    given(Balance)  # error
