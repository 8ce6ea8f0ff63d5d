"""Accounts: enough commands to meet every way in which a handler can answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import ego


class Deposit(ego.Command):
    amount: int


class Withdraw(ego.Command):
    amount: int


class Split(ego.Command):
    """Several deposits in one command."""

    amounts: tuple[int, ...]
    as_list: bool = True


class Look(ego.Command):
    """No event."""

    empty_list: bool = False


class Do(ego.Command):
    """Returns whatever the function returns, an awaitable included."""

    action: Callable[["Account"], Any]


class Deposited(ego.Event):
    amount: int


class Withdrawn(ego.Event):
    amount: int


class Noted(ego.Event):
    """No money, and anything at all."""

    note: Any


class Balance(ego.State):
    amount: int = 0


class InsufficientFundsError(Exception):
    def __init__(self, asked: int, balance: int) -> None:
        super().__init__(f"asked for {asked}, there is {balance}")
        self.asked = asked
        self.balance = balance


class OverdrawnError(Exception):
    """Raised by `handle_event`: an event that may not happen."""


AccountCommand = Deposit | Withdraw | Split | Look | Do
AccountEvent = Deposited | Withdrawn | Noted


class Account(ego.EventSourcedBehavior[AccountCommand, AccountEvent, Balance]):
    kind = "account"

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(
        self, command: AccountCommand, state: Balance
    ) -> AccountEvent | list[AccountEvent] | tuple[AccountEvent, ...] | Awaitable[Any] | None:
        match command:
            case Deposit(amount):
                return Deposited(amount)
            case Withdraw(amount):
                if amount > state.amount:
                    raise InsufficientFundsError(amount, state.amount)
                return Withdrawn(amount)
            case Split(amounts, as_list):
                events = [Deposited(amount) for amount in amounts]
                return [*events] if as_list else (*events,)
            case Look(empty_list):
                return [] if empty_list else None
            case Do(action):
                return cast("Awaitable[Any]", action(self))

    def handle_event(self, event: AccountEvent, state: Balance) -> Balance:
        match event:
            case Deposited(amount):
                return Balance(state.amount + amount)
            case Withdrawn(amount):
                if amount > state.amount:
                    raise OverdrawnError
                return Balance(state.amount - amount)
            case Noted():
                return state


class Gate:
    """An `async def` handler's wait that the test ends."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def passed(self, *events: AccountEvent) -> list[AccountEvent]:
        self.reached.set()
        await self.opened.wait()
        return [*events]

    def command(self, *events: AccountEvent) -> Do:
        return Do(lambda _: self.passed(*events))
