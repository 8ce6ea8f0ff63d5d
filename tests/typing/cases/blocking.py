"""What a checker knows about an engine for threads."""

from bank import Account, Balance, Deposit, Savings, Withdraw

import ego
import ego.sync

engine = ego.sync.Engine("bank", ego.MemoryStore(), behaviors=[Account, Savings])
with engine as entered:
    reveal_type(entered)  # is: Engine
    ref = engine.get(Account, "a")
    reveal_type(ref)  # is: EntityRef[Deposit | Withdraw, Balance]
    reveal_type(ref.send(Deposit(5)))  # is: tuple[Balance, int]
    reveal_type(ref.send(Withdraw(5), timeout=None, expected_revision=ego.MUST_EXIST))  # is: tuple[Balance, int]
    reveal_type(ref.state())  # is: tuple[Balance, int]
    reveal_type(ref.tell(Deposit(1)))  # is: None
    reveal_type(engine.entity(Account("a")))  # is: EntityRef[Deposit | Withdraw, Balance]
    reveal_type(engine.send_command("a", Deposit(1), kind=Account))  # is: tuple[Balance, int]
    reveal_type(engine.send_command("a", 5, kind="account"))  # is: tuple[Any, int]
    only_deposits: ego.sync.EntityRef[Deposit, Balance] = ref
    ref.send(5)  # error
    ref.tell("hello")  # error
    engine.send_command("a", 5, kind=Account)  # error
    engine.durable_state_entity(Account("a"))  # error
    not_async: ego.EntityRef[Deposit, Balance] = ref  # error
reveal_type(engine.stop().finished)  # is: bool
ego.nothing  # error
