"""What must not pass a checker."""

import ego
from bank import Account, Balance, Deposit, Deposited, Later, Withdraw


async def main(engine: ego.Engine) -> None:
    ref = engine.get(Account, "a")
    await ref.send(Deposited(5))  # error
    await ref.send("deposit")  # error
    await engine.get(Later, "a").send(Withdraw(5))  # error
    ref.tell(Balance(5))  # error
    await ref.send(Deposit(5), 5.0)  # error
    await ref.send(Deposit(5), timeout="5")  # error
    await ref.send(command=Deposit(5))  # error
    engine.get(Account, 5)  # error
    engine.get("account", "a")  # error
    engine.get(Deposit, "a")  # error
    await engine.entity(Account)  # error
    await engine.entity("a")  # error
    await engine.send_command("a", Deposited(5), kind=Account)  # error
    everything: ego.EntityRef[object, Balance] = ref  # error
    other: ego.EntityRef[Deposit, int] = ref  # error
    Deposit(5).amount = 6  # error
    Balance(5).amount = 6  # error
    Deposited(5).amount = 6  # error
    Deposit("five")  # error
    Deposit()  # error
    ego.Engine("bank", "bank.ego")  # error
    ego.Engine("bank", ego.MemoryStore(), [Account])  # error
    ego.Engine("bank", ego.MemoryStore(), behaviors=[Deposit])  # error
    ego.LogStore(5)  # error
    ego.LogStore("bank.ego", 128)  # error
    ego.stored("bank.credited", 2)  # error
    ego.Kind(Account, create=lambda entity_id: Later(entity_id))  # error
    print(everything, other)


class WrongState(ego.EventSourcedBehavior[Deposit, Deposited, Balance]):
    def initial_state(self) -> int:  # error
        return 0

    def handle_command(self, command: Withdraw, state: Balance) -> Deposited:  # error
        return Deposited(1)

    def handle_event(self, event: Deposited, state: Balance) -> None:  # error
        return None


class WrongEvents(ego.EventSourcedBehavior[Deposit, Deposited, Balance]):
    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Deposit, state: Balance) -> Withdraw:  # error
        return Withdraw(1)

    async def handle_event(self, event: Deposited, state: Balance) -> Balance:  # error
        return state


class Half(ego.EventSourcedBehavior[Deposit, Deposited, Balance]):
    def initial_state(self) -> Balance:
        return Balance()


Half("a")  # error
