"""What a checker knows about references and answers."""

import asyncio
from collections.abc import Mapping
from typing import Any

from bank import Account, Balance, Deposit, Deposited, Later, Savings, Withdraw

import ego


async def main() -> None:
    async with ego.Engine("bank", ego.MemoryStore(), behaviors=[Account, ego.Kind(Later), Savings]) as engine:
        reveal_type(engine)  # is: Engine
        ref = engine.get(Account, "a")
        reveal_type(ref)  # is: EntityRef[Deposit | Withdraw, Balance]
        reveal_type(await engine.get(Account, "a").send(Deposit(5)))  # is: tuple[Balance, int]
        reveal_type(await ref.send(Withdraw(5), timeout=None))  # is: tuple[Balance, int]
        reveal_type(await ref.state())  # is: tuple[Balance, int]
        reveal_type(ref.tell(Deposit(1)))  # is: None
        reveal_type(await engine.entity(Account("a")))  # is: EntityRef[Deposit | Withdraw, Balance]
        reveal_type(engine.get(Savings, "a"))  # is: EntityRef[Deposit | Withdraw, Balance]
        reveal_type(engine.get(Later, "a"))  # is: EntityRef[Deposit, Balance]
        reveal_type(await engine.send_command("a", Deposit(1), kind=Account))  # is: tuple[Balance, int]
        reveal_type(await engine.send_command("a", Deposit(1)))  # is: tuple[Any, int]
        reveal_type(await engine.send_command("a", 5, kind="account"))  # is: tuple[Any, int]
        reveal_type(await asyncio.create_task(ref.send(Deposit(5))))  # is: tuple[Balance, int]
        reveal_type(await asyncio.wait_for(ref.send(Deposit(5)), 1))  # is: tuple[Balance, int]
        both = await asyncio.gather(ref.send(Deposit(5)), ref.state())
        reveal_type(both)  # is: tuple[tuple[Balance, int], tuple[Balance, int]]
        reveal_type(ego.context().revision)  # is: int
        reveal_type(ego.context().now())  # is: datetime
        reveal_type(ego.Kind(Account))  # is: Kind[Deposit | Withdraw, Balance]
        reveal_type(Account("a").id)  # is: str
        reveal_type(Account.kind)  # is: str
        reveal_type(ego.stored("bank.credited", version=2)(Deposited))  # is: type[Deposited]
        only_deposits: ego.EntityRef[Deposit, Balance] = ref
        reveal_type(await only_deposits.send(Deposit(1)))  # is: tuple[Balance, int]
    report = await engine.stop()
    reveal_type(report.finished)  # is: bool
    try:
        await engine.start()
    except ego.CommandTimeoutError as late:
        reveal_type(late.outcome)  # is: Literal['not_run', 'unknown']
    except ego.StoreLockedError as locked:
        reveal_type(locked.pid)  # is: int | None


def expect(revision: int | ego.Expected) -> None: ...


expect(3)
expect(ego.MUST_EXIST)
expect(ego.MUST_NOT_EXIST)
expect("must exist")  # error
reveal_type(ego.RevisionConflictError("?").expected)  # is: int | Expected
reveal_type(ego.VersionError("?").actual_type)  # is: str
reveal_type(ego.CommandIdReusedError("?").command_id)  # is: str


@ego.upcast("bank.deposited", from_version=1)
def in_cents(old: dict[str, object]) -> dict[str, object]:
    return {**old, "currency": "EUR"}


@ego.upcast("bank.deposited", from_version=2)
def with_currency(old: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**old, "currency": "EUR"}


@ego.upcast("bank.deposited", from_version=3)  # error
def wrong(old: Deposited) -> Deposited:
    return old


@ego.upcast("bank.deposited", from_version=3)  # error
async def late(old: dict[str, Any]) -> dict[str, Any]:
    return old


reveal_type(with_currency({}))  # is: Mapping[str, Any]
ego.Kind(Account, passivate_after=60, keep_command_ids=0, keep_command_ids_for=3600.0)
ego.Kind(Account, passivate_after="60")  # error
ego.Kind(Account, keep_command_ids=None)  # error


async def terms(ref: ego.EntityRef[Deposit, Balance], engine: ego.Engine) -> None:
    reveal_type(await ref.send(Deposit(1), expected_revision=3, command_id="c-1"))  # is: tuple[Balance, int]
    reveal_type(await ref.send(Deposit(1), metadata={"user": "ann"}))  # is: tuple[Balance, int]
    answer = await engine.send_command("a", Deposit(1), kind=Account, expected_revision=ego.MUST_EXIST)
    reveal_type(answer)  # is: tuple[Balance, int]
    reveal_type(await engine.send_command("a", 5, command_id="c-1", metadata={}))  # is: tuple[Any, int]
    await ref.send(Deposit(1), expected_revision=None, command_id=None, metadata=None)
    await ref.send(Deposit(1), expected_revision="1")  # error
    await ref.send(Deposit(1), command_id=1)  # error
    await ref.send(Deposit(1), metadata={"user": 1})  # error
    await ref.send(Deposit(1), metadata=[("user", "ann")])  # error
    await engine.send_command("a", Deposit(1), expected_revision=1.0)  # error
    reveal_type(ego.context().command_id)  # is: str | None
    reveal_type(ego.context().metadata)  # is: dict[str, str]
