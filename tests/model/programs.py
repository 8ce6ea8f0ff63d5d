"""Programs: fifty operations each, made of one number.

An operation is a name and a number of its own. What it does is worked out when it runs, from that number and from what
is under way, so that a program still makes sense when some of its operations are left out.

Programs run side by side in a world: one engine, one store and one clock for all of them. What happens to the engine
and the clock happens to all at once: those operations are the world's, and every program of a world has them at the
same places.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from model import MUST_EXIST, MUST_NOT_EXIST, Model, Order, Request, Rules

LENGTH: Final = 50
PER_WORLD: Final = 50
ENTITIES: Final = 3

OPERATIONS: Final = {
    "send": 12, "pipeline": 10, "identified": 9, "repeat": 9, "reuse": 3, "expect": 8, "gate": 8, "open": 13,
    "later": 3, "ask": 4, "circle": 4, "cancel": 4, "hasty": 3, "tell": 3, "telling": 3, "look": 3, "fill": 4,
    "misuse": 10, "full": 3,
}  # fmt: skip
WORLD_OPERATIONS: Final = {"advance": 8, "restart": 2, "halt": 2, "poison": 2}
WORLD_SHARE: Final = 0.18

DECISIONS: Final = {
    "add": 30, "many": 8, "context": 8, "nothing": 4, "equal": 3, "reject": 9, "fail": 5, "explode": 5, "misfold": 5,
    "rubbish": 4, "opaque": 5, "skip": 3, "cover": 3, "itself": 2,
}  # fmt: skip
MISUSES: Final = ("timeout", "command_id", "metadata", "stranger", "nobody", "nameless")


@dataclass(frozen=True)
class Operation:
    name: str
    seed: int


@dataclass(frozen=True)
class World:
    """What programs share."""

    seed: int
    rules: Rules
    seconds: dict[int, float]
    """How far the clock moves, by place."""
    operations: dict[int, Operation]


@dataclass
class Program:
    seed: int
    world: World
    operations: list[tuple[int, Operation]]
    """With the places where they stood."""


@dataclass(frozen=True)
class Send:
    request: Request
    hasty: bool = False
    """Cancelled right after the call."""
    by_id: bool = False
    in_task: bool = False


@dataclass(frozen=True)
class Tell:
    request: Request


@dataclass(frozen=True)
class Open:
    gate: int


@dataclass(frozen=True)
class Cancel:
    request: Request


@dataclass(frozen=True)
class Misuse:
    name: str
    to: int


Action = Send | Tell | Open | Cancel | Misuse


@dataclass
class History:
    """What a program has done so far."""

    sent: list[Request] = field(default_factory=list[Request])
    """Those of callers outside."""
    marks: int = 0

    def mark(self) -> int:
        self.marks += 1
        return self.marks


def _pick(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), cum_weights=list(accumulate(weights.values())))[0]


def world(seed: int, durable: bool) -> World:
    """The world in which the program of that number runs."""
    seed -= seed % PER_WORLD
    rng = random.Random(f"world {seed} {durable}")
    rules = Rules(
        kind="page" if durable else "ledger",
        durable=durable,
        mailbox_capacity=rng.choice((2, 3, 4)),
        keep_command_ids=rng.choice((1, 4, 4, 256)),
        keep_command_ids_for=rng.choice((20.0, 86_400.0)),
        passivate_after=rng.choice((None, 10.0, 25.0)),
        resident_limit=rng.choice((None, None, PER_WORLD)),
    )
    places = [place for place in range(LENGTH) if rng.random() < WORLD_SHARE]
    operations = {place: Operation(_pick(rng, WORLD_OPERATIONS), rng.getrandbits(32)) for place in places}
    seconds = {place: rng.choice((1.0, 5.0, 20.0, 30.0)) for place in places}
    return World(seed, rules, seconds, operations)


def program(seed: int, durable: bool) -> Program:
    """The program of that number."""
    rng, shared = random.Random(f"program {seed} {durable}"), world(seed, durable)
    own = [Operation(_pick(rng, OPERATIONS), rng.getrandbits(32)) for _ in range(LENGTH)]
    return Program(seed, shared, [(place, shared.operations.get(place, own[place])) for place in range(LENGTH)])


class _Chooser:
    """Works out one operation."""

    def __init__(self, operation: Operation, model: Model, history: History) -> None:
        self.rng = random.Random(operation.seed)
        self.model, self.history = model, history

    def entity(self) -> int:
        return self.rng.randrange(ENTITIES)

    def other(self, entity: int) -> int:
        return (entity + self.rng.randrange(1, ENTITIES)) % ENTITIES

    def busy(self) -> int | None:
        held = [index for index, entity in enumerate(self.model.entities) if entity.turn is not None]
        return self.rng.choice(held) if held else None

    def order(self, what: str | None = None, **parts: Any) -> Order:
        return Order(what or _pick(self.rng, DECISIONS), self.rng.randrange(1000), self.history.mark(), **parts)

    def plain(self) -> Order:
        return self.order(self.rng.choice(("add", "add", "context", "fail", "reject")))

    def told_by(self, entity: int) -> tuple[tuple[int, Order], ...]:
        return tuple((self.other(entity), self.plain()) for _ in range(self.rng.choice((1, 1, 2))))

    def timeout(self) -> float | None:
        return self.rng.choice((None, 3.0, 10.0, 30.0, 1_000.0))

    def metadata(self) -> dict[str, str]:
        return {f"key-{self.rng.randrange(3)}": str(self.rng.randrange(10))} if self.rng.random() < 0.3 else {}

    def command_id(self) -> str:
        return f"c-{self.history.marks}"

    def expected(self, entity: int) -> int | str:
        revision = self.model.entities[entity].revision
        return self.rng.choice((revision, revision, revision + 1, max(revision - 1, 0), 0, MUST_EXIST, MUST_NOT_EXIST))

    def sent(self, to: int, order: Order | None, **terms: Any) -> Send:
        """One that is sent; some on terms, some awaited in a task."""
        terms.setdefault("timeout", self.timeout())
        request = Request(to, order, metadata=terms.pop("metadata", {}), **terms)
        if order is not None:
            self.history.sent.append(request)
        return Send(request, in_task=self.rng.random() < 0.2)

    def again(self, order_of: Request) -> Send:
        expected = self.expected(order_of.to) if self.rng.random() < 0.3 else None
        return self.sent(order_of.to, order_of.order, command_id=order_of.command_id, expected=expected)

    def identified(self) -> Request | None:
        """One of the last commands with an id."""
        known = [request for request in self.history.sent if request.command_id is not None]
        return self.rng.choice(known[-8:]) if known else None


def actions(operation: Operation, model: Model, history: History) -> list[Action]:
    """What an operation of a program comes to, at this moment."""
    choose = _Chooser(operation, model, history)
    rng, to = choose.rng, choose.entity()
    match operation.name:
        case "send":
            sent = choose.sent(to, choose.order(), metadata=choose.metadata())
            return [Send(sent.request, by_id=model.entities[to].revision > 0 and rng.random() < 0.3)]
        case "pipeline":
            first = [choose.sent(to, choose.order("add"))] if rng.random() < 0.6 else []
            return [*first, *(choose.sent(to, choose.order()) for _ in range(rng.randrange(1, 4)))]
        case "identified":
            what = choose.order(how=rng.choice(("now", "now", "later", "gate")))
            return [choose.sent(to, what, command_id=choose.command_id(), metadata=choose.metadata())]
        case "repeat":
            known = choose.identified()
            if known is None:
                return [choose.sent(to, choose.order("add"), command_id=choose.command_id())]
            return [choose.again(known) for _ in range(rng.choice((1, 1, 2)))]
        case "reuse":
            known = choose.identified()
            reused = choose.command_id() if known is None else known.command_id
            return [choose.sent(to if known is None else known.to, choose.order("add"), command_id=reused)]
        case "expect":
            identity = choose.command_id() if rng.random() < 0.3 else None
            return [choose.sent(to, choose.order(), expected=choose.expected(to), command_id=identity)]
        case "gate":
            tells = choose.told_by(to) if rng.random() < 0.3 else ()
            return [choose.sent(to, choose.order(how="gate", tells=tells), metadata=choose.metadata())]
        case "open":
            gates = model.gates()
            return [Open(rng.choice(gates))] if gates else [choose.sent(to, choose.order("add", how="gate"))]
        case "later":
            return [choose.sent(to, choose.order(how="later"))]
        case "ask":
            asked = choose.order(how=rng.choice(("now", "later", "gate")))
            timeout = rng.choice((None, 10.0))
            identity = choose.command_id() if rng.random() < 0.4 else None
            how = rng.choice(("later", "gate"))
            order = choose.order("add", how=how, asks=(choose.other(to), asked, timeout))
            return [choose.sent(to, order, command_id=identity, metadata=choose.metadata())]
        case "circle":
            return [choose.sent(to, _circle(choose, to))]
        case "cancel":
            waiting = [held for held in model.under_way() if held in history.sent and held.outcome is None]
            waiting = [held for held in waiting if not held.told and held.sender is None]
            return (
                [Cancel(rng.choice(waiting))]
                if waiting
                else [Send(choose.sent(to, choose.plain()).request, hasty=True)]
            )
        case "hasty":
            how = rng.choice(("now", "later", "gate"))
            return [Send(choose.sent(to, choose.order(how=how)).request, hasty=True)]
        case "tell":
            return [Tell(Request(to, choose.plain(), told=True))]
        case "telling":
            identity = choose.command_id() if rng.random() < 0.4 else None
            order = choose.order(how=rng.choice(("now", "later")), tells=choose.told_by(to))
            return [choose.sent(to, order, command_id=identity, metadata=choose.metadata())]
        case "look":
            return [choose.sent(to, None)]
        case "fill":
            busy = choose.busy()
            held = [] if busy is not None else [choose.sent(to, choose.order("add", how="gate"))]
            more = model.rules.mailbox_capacity + 1
            at = to if busy is None else busy
            return [*held, *(choose.sent(at, choose.plain()) for _ in range(more))]
        case "full":
            idle = model.idle()
            if not idle:
                return [choose.sent(to, choose.order("add"))]
            request = choose.sent(rng.choice(idle), choose.order("add", how=rng.choice(("now", "later")))).request
            request.trouble = "refuse"
            return [Send(request)]
        case "misuse":
            return [Misuse(rng.choice(MISUSES), to)]
        case _:
            raise ValueError(operation.name)


def _circle(choose: _Chooser, to: int) -> Order:
    """A handler that asks its own entity, or another one that asks it; the gates make circles of two such handlers."""
    other = choose.other(to)
    match choose.rng.randrange(3):
        case 0:
            return choose.order("add", how="later", asks=(to, choose.order("add"), None))
        case 1:
            back = choose.order("add", how="later", asks=(to, choose.order("add"), None))
            return choose.order("add", how="later", asks=(other, back, None))
        case _:
            return choose.order("add", how="gate", asks=(other, choose.order("add"), None))
