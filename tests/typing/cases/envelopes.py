"""What a checker knows about what readers are handed."""

from bank import Balance, Deposited

import ego


def handle(envelope: ego.EventEnvelope[Deposited]) -> None:
    reveal_type(envelope.event)  # is: Deposited
    reveal_type(envelope.time)  # is: datetime
    reveal_type(envelope.metadata)  # is: Mapping[str, str]
    reveal_type(envelope.cursor)  # is: Cursor
    reveal_type(envelope.id)  # is: str
    envelope.position = 5  # error


handle(ego.EventEnvelope(event=Deposited(5), entity_id="a"))
handle(ego.StateEnvelope(state=Balance(5)))  # error
reveal_type(ego.StateEnvelope(state=Balance(5)).state)  # is: Balance
reveal_type(ego.Cursor.parse("x") < ego.Cursor.parse("y"))  # is: bool
ego.EventEnvelope(Deposited(5))  # error
