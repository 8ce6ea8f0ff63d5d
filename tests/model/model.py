"""The contract of entities as a small reference, for one program. It imports nothing from ego.

Time stands still between the steps of a program, everything that can go on has gone on when a step is over, and a write
is durable or lost at once. So an answer is known when its command is over, and what is left to the order of events is
one queue of what is ready: what handlers told, and handlers that go on.

A handler is no function here but an `Order`, which says what it does.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

MODULUS = 1_000_003
MUST_EXIST = "must exist"
MUST_NOT_EXIST = "must not exist"

Facts = dict[str, Any]
Metadata = dict[str, str]


@dataclass(frozen=True)
class Order:
    """A command, by what its handler does: it may tell, wait for its gate, ask another entity; then it decides.

    Who has asked waits for a second gate with the answer in hand. So there is always one entity alone that can go on,
    and what is seen does not hang on which of two handlers the event loop runs first.
    """

    what: str
    """How it ends: see `_decide`."""
    n: int
    mark: int
    """Its number in the program. Its gate has the same, and its second gate the same below zero."""
    how: Literal["now", "later", "gate"] = "now"
    """A `def` handler, an `async def` one, or one that waits for its gate."""
    tells: tuple[tuple[int, Order], ...] = ()
    asks: tuple[int, Order, float | None] | None = None


@dataclass(frozen=True)
class Answered:
    value: int
    revision: int


@dataclass(frozen=True)
class Failed:
    """An exception, by its name and attributes. `recorded`: it is a refusal that is remembered."""

    name: str
    facts: tuple[tuple[str, Any], ...] = ()
    recorded: bool = False


Outcome = Answered | Failed


class RefusedAtOnceError(Exception):
    """Nothing was accepted."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed)
        self.failed = failed


@dataclass(eq=False)
class Request:
    """A command, or with no order the question for the state, on its way."""

    to: int
    order: Order | None
    timeout: float | None = None
    expected: int | str | None = None
    command_id: str | None = None
    metadata: Metadata = field(default_factory=dict[str, str])
    sender: Request | None = None
    told: bool = False

    deadline: float | None = None
    status: Literal["queued", "running", "over"] = "queued"
    outcome: Outcome | None = None
    """What is shown. A command that is too late or cancelled goes on after that."""
    stage: Literal["gate", "asks", "answered"] | None = None
    reply: Outcome | None = None
    """What the entity said that was asked."""
    begun_at: int = 0
    """The revision that its handler saw."""
    trouble: Literal["refuse", "fail", "lose"] | None = None
    """The store has no room for what it stores; the write fails; it is stored and nobody is told."""
    may_be_cancelled: bool = False
    """Cancelled right after the call: shown either way, and stored."""


@dataclass
class Remembered:
    order: Order
    outcome: Outcome
    time: float


@dataclass
class Entity:
    name: str
    value: int = 0
    revision: int = 0
    turn: Request | None = None
    queue: deque[Request] = field(default_factory=deque[Request])
    commands: dict[str, Remembered] = field(default_factory=dict[str, Remembered])
    """The oldest first."""
    used: float | None = None
    """When somebody had its turn last, in this run of the engine."""


@dataclass(frozen=True)
class Rules:
    """What the kind and the engine are told."""

    kind: str
    durable: bool
    mailbox_capacity: int
    keep_command_ids: int
    keep_command_ids_for: float
    passivate_after: float | None
    resident_limit: int | None


def failed(name: str, recorded: bool = False, **facts: Any) -> Failed:
    return Failed(name, tuple(sorted(facts.items())), recorded)


def folded(value: int, n: int) -> int:
    """The next value; the order of what is folded shows."""
    return (value * 31 + n) % MODULUS


def seen(name: str, kind: str, revision: int, command_id: str | None, metadata: Mapping[str, str]) -> int:
    """What a handler makes of its context."""
    return zlib.crc32(repr((name, kind, revision, command_id, sorted(metadata.items()))).encode()) % 997


class Model:
    """Some entities of one kind, and the commands that are under way."""

    def __init__(self, rules: Rules, names: tuple[str, ...]) -> None:
        self.rules = rules
        self.now = 0.0
        self.entities = [Entity(name) for name in names]
        self.ran = 0
        """How often a handler was called."""
        self.poisoned = False
        """A write failed; nothing runs any more until the next start."""
        self.touched: set[int] = set()
        """Whose turn somebody had."""
        self.logged: list[tuple[int, str]] = []
        """What nobody waited for and failed: which entity, and the name of the exception."""
        self._ready: deque[Callable[[], None]] = deque()

    def send(self, request: Request) -> Request:
        """Accepts a command, without going on: see `settle`. Raises `RefusedAtOnceError`."""
        entity = self.entities[request.to]
        request.metadata = {**self._inherited(request.sender), **request.metadata}
        if request.timeout is not None:
            request.deadline = self.now + request.timeout
        if entity.turn is None:
            self._begin(request)
            return request
        if request.sender is not None and not request.told:
            self._check_deadlock(request.sender, request.to)
        if len(entity.queue) >= self.rules.mailbox_capacity:
            capacity = self.rules.mailbox_capacity
            raise RefusedAtOnceError(failed("MailboxFullError", capacity=capacity, entity_id=entity.name))
        entity.queue.append(request)
        return request

    def settle(self) -> None:
        """Goes on until nothing can."""
        while self._ready:
            self._ready.popleft()()

    def gates(self) -> list[int]:
        """Those at which handlers wait."""
        return [gate for gate, _ in self.held()]

    def open(self, gate: int) -> None:
        """Lets the handler go on that waits there."""
        for found, request in self.held():
            if found == gate:
                go_on = self._go_on if gate > 0 else self._answered
                self._ready.append(partial(go_on, request))

    def turns(self) -> list[Request]:
        """Those whose handlers run."""
        return [entity.turn for entity in self.entities if entity.turn is not None]

    def held(self) -> list[tuple[int, Request]]:
        """The gates at which handlers wait, and whose they are."""
        waiting = [turn for turn in self.turns() if turn.stage in ("gate", "answered")]
        marks = [(turn.order.mark if turn.order else 0, turn) for turn in waiting]
        return [(-mark if turn.stage == "answered" else mark, turn) for mark, turn in marks]

    def cancel(self, request: Request) -> None:
        """The caller wants no answer any more: what is queued never runs, what has begun is finished."""
        if request.outcome is None:
            self._give_up(request, failed("CancelledError"), failed("CancelledError"))

    def advance(self, seconds: float) -> None:
        """Moves the clock."""
        self.now += seconds
        for entity in self.entities:
            held = [entity.turn] if entity.turn else []
            for request in [*held, *entity.queue]:
                if request.outcome is None and request.deadline is not None and request.deadline <= self.now:
                    self._too_late(request)

    def stop_at_once(self) -> None:
        """A stop whose time is over: whoever waits is told how far his command came, and nobody goes on."""
        for entity in self.entities:
            held = [entity.turn] if entity.turn else []
            for request in [*held, *entity.queue]:
                if request.outcome is None and not request.told:
                    self._too_late(request)
            entity.turn = None
            entity.queue.clear()
        self._ready.clear()

    def started(self) -> None:
        """The engine goes on from what is stored; nothing is in memory."""
        self.poisoned = False
        for entity in self.entities:
            entity.used = None

    def is_resident(self, index: int) -> bool | None:
        """Whether an entity is in memory; none where that cannot be told: its time is just over, or room is short."""
        entity, after = self.entities[index], self.rules.passivate_after
        if self.rules.resident_limit is not None:
            return None
        if entity.turn is not None or entity.used is None or after is None:
            return entity.turn is not None or entity.used is not None
        idle = self.now - entity.used
        return None if after <= idle < after + 1 else idle < after

    def idle(self) -> list[int]:
        """The entities of which nobody has the turn."""
        return [index for index, entity in enumerate(self.entities) if entity.turn is None]

    def under_way(self) -> list[Request]:
        """What runs or is queued."""
        requests: list[Request] = []
        for entity in self.entities:
            requests += [*([entity.turn] if entity.turn else []), *entity.queue]
        return requests

    def _inherited(self, sender: Request | None) -> Metadata:
        if sender is None:
            return {}
        metadata = dict(sender.metadata)
        if sender.command_id is not None:
            metadata.setdefault("correlation_id", sender.command_id)
            metadata["causation_id"] = sender.command_id
        return metadata

    def _check_deadlock(self, sender: Request, to: int) -> None:
        chain = [sender.to, to]
        while chain[-1] != sender.to:
            holder = self.entities[chain[-1]].turn
            if holder is None or holder.stage != "asks" or holder.order is None or holder.order.asks is None:
                return
            chain.append(holder.order.asks[0])
        names = tuple(f"{self.rules.kind}/{self.entities[index].name}" for index in chain)
        raise RefusedAtOnceError(failed("DeadlockError", chain=names))

    def _too_late(self, request: Request) -> None:
        name = self.entities[request.to].name
        late = partial(failed, "CommandTimeoutError", entity_id=name)
        self._give_up(request, late(outcome="not_run"), late(outcome="unknown"))

    def _give_up(self, request: Request, queued: Failed, running: Failed) -> None:
        if request.status == "queued":
            self.entities[request.to].queue.remove(request)
            request.status = "over"
            self._show(request, queued)
        else:
            self._show(request, running)

    def _show(self, request: Request, outcome: Outcome) -> None:
        if request.outcome is not None:
            return
        request.outcome = outcome
        if request.told and isinstance(outcome, Failed):
            self.logged.append((request.to, outcome.name))
        sender = request.sender
        if sender is not None and not request.told and sender.stage == "asks":
            sender.stage, sender.reply = "answered", outcome

    def _begin(self, request: Request) -> None:
        """Takes the turn of an idle entity."""
        self.touched.add(request.to)
        entity = self.entities[request.to]
        entity.used = self.now
        entity.turn, request.status, request.begun_at = request, "running", entity.revision
        order = request.order
        if order is None:
            self._end(request, Answered(entity.value, entity.revision))
            return
        if self.poisoned:
            self._end(request, failed("StorePoisonedError"))
            return
        outcome = self._repeated(entity, order, request.command_id) or self._conflict(entity, request.expected)
        if outcome is not None:
            self._end(request, outcome)
            return
        self.ran += 1
        if order.how == "now":
            self._conclude(request, order, order.n)
        elif order.how == "gate":
            request.stage = "gate"
        else:
            self._ready.append(partial(self._go_on, request))

    def _repeated(self, entity: Entity, order: Order, command_id: str | None) -> Outcome | None:
        if command_id is None or (found := entity.commands.get(command_id)) is None:
            return None
        if found.time < self.now - self.rules.keep_command_ids_for:
            return None
        if found.order != order:
            return failed("CommandIdReusedError", command_id=command_id, entity_id=entity.name)
        return found.outcome

    def _conflict(self, entity: Entity, expected: int | str | None) -> Failed | None:
        actual = entity.revision
        named = {MUST_EXIST: actual > 0, MUST_NOT_EXIST: actual == 0}
        if expected is None or (named[expected] if isinstance(expected, str) else expected == actual):
            return None
        told = MUST_NOT_EXIST if expected == 0 else expected
        return failed("RevisionConflictError", expected=told, actual=actual, entity_id=entity.name)

    def _go_on(self, request: Request) -> None:
        """An `async def` handler, past its gate if it has one."""
        order = request.order
        if order is None:
            return
        request.stage = None
        if order.asks is None:
            self._conclude(request, order, order.n)
            return
        to, asked, timeout = order.asks
        request.stage = "asks"
        try:
            self.send(Request(to, asked, timeout=timeout, sender=request))
        except RefusedAtOnceError as error:
            request.stage = None
            self._end(request, self._recorded(request, order, error.failed))

    def _answered(self, request: Request) -> None:
        """The handler that asked goes on with its answer."""
        order, reply = request.order, request.reply
        if order is None or reply is None:
            return
        request.stage = None
        if isinstance(reply, Failed):
            self._end(request, self._recorded(request, order, reply))
        else:
            self._conclude(request, order, order.n + reply.value + reply.revision)

    def _conclude(self, request: Request, order: Order, n: int) -> None:
        """What the handler returned is folded and stored."""
        entity = self.entities[request.to]
        outcome = self._recorded(request, order, self._decide(entity, request, order.what, n))
        if request.trouble in ("fail", "lose"):
            self.poisoned, outcome = True, failed("OutcomeUnknownError")
        self._end(request, outcome, order.tells)

    def _decide(self, entity: Entity, request: Request, what: str, n: int) -> Outcome:
        durable, name = self.rules.durable, entity.name
        numbers: list[int] = []
        match what:
            case "add":
                numbers = [n]
            case "many":
                numbers = [n] if durable else [n, n + 1, n + 2]
            case "context":
                where = (request.begun_at, request.command_id, request.metadata)
                numbers = [seen(name, self.rules.kind, *where)]
            case "nothing" | "equal":
                pass
            case "reject":
                return failed("RefusedError", recorded=True, n=n)
            case "fail":
                return failed("BrokenError", n=n)
            case "explode":
                return failed("ExplodedError", n=n)
            case "itself":
                return failed("DeadlockError", chain=(f"{self.rules.kind}/{name}",) * 2)
            case "misfold":
                return failed("MisfoldedError", n=n)
            case "rubbish":
                return failed("HandlerResultError", entity_id=name)
            case "opaque":
                return failed("CodecError", entity_id=name)
            case "skip" | "cover" if durable:
                expected = entity.revision + 1
                actual = expected + (what == "skip")
                actual_type = "Cover" if what == "cover" else "Page"
                versions = partial(failed, "VersionError", expected=expected, actual=actual)
                return versions(entity_id=name, expected_type="Page", actual_type=actual_type)
            case _:
                return failed("HandlerResultError", entity_id=name)
        if request.trouble == "refuse":
            return failed("StoreFullError")
        if request.trouble == "fail":
            return failed("OutcomeUnknownError")
        for number in numbers:
            entity.value = folded(entity.value, number)
        entity.revision += len(numbers)
        return Answered(entity.value, entity.revision)

    def _recorded(self, request: Request, order: Order, outcome: Outcome) -> Outcome:
        """Remembers how a command with an id ended."""
        commands, command_id = self.entities[request.to].commands, request.command_id
        if command_id is not None and (isinstance(outcome, Answered) or outcome.recorded):
            commands.pop(command_id, None)
            commands[command_id] = Remembered(order, outcome, self.now)
            while len(commands) > self.rules.keep_command_ids:
                del commands[next(iter(commands))]
        return outcome

    def _end(self, request: Request, outcome: Outcome, tells: tuple[tuple[int, Order], ...] = ()) -> None:
        """Shows the answer, lets what was told go, and passes the turn on."""
        request.status = "over"
        if isinstance(outcome, Answered):
            for to, order in tells:
                self._ready.append(partial(self._deliver, Request(to, order, sender=request, told=True)))
        self._show(request, outcome)
        self.touched.add(request.to)
        entity = self.entities[request.to]
        entity.turn, entity.used = None, self.now
        if entity.queue:
            self._begin(entity.queue.popleft())

    def _deliver(self, request: Request) -> None:
        try:
            self.send(request)
        except RefusedAtOnceError as error:
            self.logged.append((request.to, error.failed.name))
