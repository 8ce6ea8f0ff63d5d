"""A kind of which the event was changed without a new version, so that what is stored cannot be read any more."""

import ego
from egotest.bank import Balance, Deposit


@ego.stored("Measured")
class Measured(ego.Event):
    by: int


@ego.stored("Measured")
class MeasuredInWords(ego.Event):
    by: str


class Meter(ego.EventSourcedBehavior[Deposit, Measured, Balance]):
    kind = "meter"

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Deposit, state: Balance) -> Measured:
        return Measured(command.amount)

    def handle_event(self, event: Measured, state: Balance) -> Balance:
        return state


class WordMeter(ego.EventSourcedBehavior[Deposit, MeasuredInWords, Balance]):
    kind = "meter"

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Deposit, state: Balance) -> MeasuredInWords:
        return MeasuredInWords(str(command.amount))

    def handle_event(self, event: MeasuredInWords, state: Balance) -> Balance:
        return state
