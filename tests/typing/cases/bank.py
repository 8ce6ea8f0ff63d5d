"""A behavior as a user writes it."""

from typing import TypeAlias

import ego


class Deposit(ego.Command):
    amount: int


class Withdraw(ego.Command):
    amount: int
    force: bool = False


class Deposited(ego.Event):
    amount: int


class Withdrawn(ego.Event):
    amount: int


class Balance(ego.State):
    amount: int = 0


AccountCommand: TypeAlias = Deposit | Withdraw
AccountEvent: TypeAlias = Deposited | Withdrawn


class Account(ego.EventSourcedBehavior[AccountCommand, AccountEvent, Balance]):
    kind = "account"

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: AccountCommand, state: Balance) -> list[AccountEvent] | AccountEvent | None:
        match command:
            case Deposit(amount=0):
                return None
            case Deposit(amount):
                return Deposited(amount)
            case Withdraw(amount):
                return [Withdrawn(amount)]

    def handle_event(self, event: AccountEvent, state: Balance) -> Balance:
        return Balance(state.amount + event.amount)


class Later(ego.EventSourcedBehavior[Deposit, Deposited, Balance]):
    def initial_state(self) -> Balance:
        return Balance()

    async def handle_command(self, cmd: Deposit, state: Balance) -> tuple[Deposited, ...]:
        return (Deposited(cmd.amount),)

    def handle_event(self, happened: Deposited, before: Balance) -> Balance:
        return Balance(before.amount + happened.amount)


class Savings(Account):
    pass
