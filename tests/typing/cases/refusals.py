"""Rejections, as they are declared, raised and read."""

from datetime import datetime

import msgspec

import ego


class InsufficientFunds(ego.Rejection):
    missing: int
    currency: str = "EUR"


@ego.stored("bank.frozen", version=2)
class AccountFrozen(ego.Rejection):
    since: datetime
    reasons: list[str] = msgspec.field(default_factory=list)


class Overdrawn(InsufficientFunds, LookupError):
    depth: float = 0.0


class Closed(ego.Rejection):
    pass


def refuse(kind: int) -> None:
    if kind == 0:
        raise InsufficientFunds(missing=5)
    if kind == 1:
        raise InsufficientFunds(5, "USD") from None
    if kind == 2:
        raise Overdrawn(5, depth=0.5)
    raise Closed


try:
    refuse(1)
except InsufficientFunds as refused:
    reveal_type(refused)  # is: InsufficientFunds
    reveal_type(refused.missing)  # is: int
    refused.missing = 6  # error
except AccountFrozen as refused_too:
    reveal_type(refused_too.reasons)  # is: list[str]
except ego.EgoError as never:
    reveal_type(never)  # is: EgoError

reveal_type(Overdrawn(5).missing)  # is: int
reveal_type(AccountFrozen(datetime.now()).since)  # is: datetime
InsufficientFunds()  # error
InsufficientFunds("five")  # error
InsufficientFunds(missing=5, wanting=6)  # error
InsufficientFunds(5, "USD", 7)  # error
AccountFrozen(5)  # error
Overdrawn(depth=0.5)  # error
funds: ego.Rejection = InsufficientFunds(5)
error: ego.EgoError = InsufficientFunds(5)  # error
