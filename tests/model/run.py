"""Runs programs on a real engine beside the model, and compares whatever can be seen.

After every operation: each answer or exception, what is still under way and how far it has come, how often handlers
were called, and the state of every entity that was touched. At the end, after a restart: every entity, the answers of
the commands that are remembered, and what was logged.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from actors import Cover, Do, Find, Ledger, Notebook, Page, Stranger
from egotest.running import turns
from model import Answered, Failed, Model, Order, Outcome, RefusedAtOnceError, Request, failed
from programs import (
    ENTITIES,
    PER_WORLD,
    Action,
    Cancel,
    History,
    Misuse,
    Open,
    Operation,
    Program,
    Send,
    Tell,
    World,
    actions,
    program,
)

import ego
from ego.testing import Clock, Faults, FaultyStore

Store = ego.LogStore | ego.MemoryStore
LIMIT = 30.0
LOGGED = re.compile(r"a command told to \w+/(\S+) (?:failed|was not accepted)")


class MismatchError(AssertionError):
    """The engine did something else than the contract says."""

    def __init__(self, seed: int, text: str) -> None:
        super().__init__(f"program {seed}: {text}")
        self.seed = seed


@dataclass
class Statistics:
    """What was done, and how it ended."""

    programs: int = 0
    steps: int = 0
    operations: Counter[str] = field(default_factory=Counter[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: Statistics) -> None:
        self.programs += other.programs
        self.steps += other.steps
        self.operations += other.operations
        self.outcomes += other.outcomes

    def count(self, outcome: Outcome) -> None:
        if isinstance(outcome, Answered):
            self.outcomes["answered"] += 1
        else:
            self.outcomes[": ".join([outcome.name, *(str(v) for k, v in outcome.facts if k == "outcome")])] += 1

    def lines(self) -> list[str]:
        """For people: the share of each among the steps, the rarest last."""
        lines = [f"{self.programs:,} programs, {self.steps:,} steps"]
        for what, counts in (("operations", self.operations), ("outcomes", self.outcomes)):
            shares = (f"{name} {count / self.steps:.1%}" for name, count in counts.most_common())
            lines.append(f"{what}: {', '.join(shares)}")
        return lines


class Stage(logging.Handler):
    """One engine, and the programs on it."""

    def __init__(self, world: World, store: Store, state_store: Store | None) -> None:
        super().__init__()
        self.world, self.casts, self.moved = world, dict[str, tuple["Running", int]](), asyncio.Event()
        self.logged: list[tuple[str, str]] = []
        rules, self.clock = world.rules, Clock()
        behavior: type[Any] = Notebook if rules.durable else Ledger
        find: Find = self.casts.__getitem__
        self.kind: ego.Kind[Any, Any] = ego.Kind(
            behavior,
            create=lambda entity_id: behavior(entity_id, find),
            keep_command_ids=rules.keep_command_ids,
            keep_command_ids_for=rules.keep_command_ids_for,
            passivate_after=rules.passivate_after,
        )
        self.faults = Faults()
        self.engine = ego.Engine(
            "model",
            FaultyStore(store, self.faults),
            behaviors=[self.kind],
            state_store=state_store and FaultyStore(state_store, self.faults),
            resident_limit=rules.resident_limit,
            mailbox_capacity=rules.mailbox_capacity,
            clock=self.clock,
        )
        self.is_open = False

    def emit(self, record: logging.LogRecord) -> None:
        """What is logged of commands that nobody waits for."""
        found = LOGGED.match(record.getMessage())
        if found and record.exc_info and record.exc_info[0]:
            self.logged.append((found[1], record.exc_info[0].__name__))

    async def start(self, running: list[Running]) -> None:
        await self.engine.start()
        for each in running:
            each.model.started()
        self.is_open = True

    async def until(self, reached: Callable[[], bool], seed: int, what: Callable[[], str]) -> None:
        """Waits for something that handlers and answers bring about."""
        try:
            async with asyncio.timeout(LIMIT):
                while not reached():
                    self.moved.clear()
                    await self.moved.wait()
        except TimeoutError:
            raise MismatchError(seed, f"waited in vain for {what()}") from None

    def wake(self, *_: object) -> None:
        self.moved.set()


class Running:
    """One program, its model, and what the engine has done of it."""

    def __init__(self, own: Program, stage: Stage, statistics: Statistics) -> None:
        self.program, self.stage, self.statistics = own, stage, statistics
        self.names = tuple(f"{own.seed}-{index}" for index in range(ENTITIES))
        self.model, self.history = Model(own.world.rules, self.names), History()
        self.operations = dict(own.operations)
        self.pending: list[tuple[Request, asyncio.Future[Any]]] = []
        self.calls, self.gates, self.asking = 0, dict[int, asyncio.Future[None]](), set[int]()
        self.place = 0
        stage.casts.update((name, (self, index)) for index, name in enumerate(self.names))
        self.refs: list[ego.EntityRef[Do, Page]] = [stage.engine.get(stage.kind.behavior, name) for name in self.names]

    # What handlers see of it.

    def ref(self, index: int) -> ego.EntityRef[Do, Page]:
        return self.refs[index]

    def called(self) -> None:
        self.calls += 1
        self.stage.wake()

    def asks(self, mark: int) -> None:
        self.asking.add(mark)
        self.stage.wake()

    async def gate(self, gate: int) -> None:
        self.asking.discard(-gate)
        self.gates[gate] = asyncio.get_running_loop().create_future()
        self.stage.wake()
        await self.gates[gate]

    # What it does.

    async def perform(self, place: int) -> None:
        """Does the operation at that place, if it is still there."""
        self.place = place
        operation = self.operations.get(place)
        if operation is None:
            return
        self.statistics.steps += 1
        self.statistics.operations[operation.name] += 1
        chosen = actions(operation, self.model, self.history)
        for action in chosen:
            if isinstance(action, Send) and (action.hasty or len(chosen) > 1):
                await self.warm(action.request.to)
        for action in chosen:
            self.do(action)
        self.model.settle()

    async def warm(self, index: int) -> None:
        """Brings an entity into memory: a command that waits for that has not begun."""
        if not self.stage.engine.is_resident(self.stage.kind.behavior, self.names[index]):
            await self.state_of(index)
            self.model.entities[index].used = self.model.now

    def do(self, action: Action) -> None:
        match action:
            case Send():
                self.send(action)
            case Tell(request):
                self.called_with(request, lambda: self.refs[request.to].tell(Do(order_of(request))))
            case Open(gate):
                self.open(gate)
            case Cancel(request):
                self.model.cancel(request)
                next(future for held, future in self.pending if held is request).cancel()
            case Misuse(name, to):
                self.misuse(name, to)

    def open(self, gate: int) -> None:
        self.model.open(gate)
        self.gates.pop(gate).set_result(None)

    def send(self, action: Send) -> None:
        request = action.request
        given: dict[str, Any] = {
            "timeout": request.timeout,
            "expected_revision": named(request.expected),
            "command_id": request.command_id,
            "metadata": dict(request.metadata) or None,
        }
        command = Do(order_of(request))
        ref, name = self.refs[request.to], self.names[request.to]
        if request.trouble == "refuse":
            self.ask_for("refuse", request.to)

        def call() -> Coroutine[Any, Any, Any]:
            if request.order is None:
                return ref.state(timeout=request.timeout)
            return (
                self.stage.engine.send_command(name, command, **given) if action.by_id else ref.send(command, **given)
            )

        answer = self.called_with(request, call)
        if answer is None:
            return
        future = asyncio.ensure_future(answer)
        if action.in_task:
            future = asyncio.ensure_future(awaited(future))
        future.add_done_callback(self.stage.wake)
        self.pending.append((request, future))
        if action.hasty and not action.in_task:
            if request.status == "over":
                request.may_be_cancelled = True
            else:
                self.model.cancel(request)
            future.cancel()

    def ask_for(self, trouble: Literal["refuse", "fail", "lose"], to: int) -> None:
        """Has the next write of an entity go wrong."""
        faults, entity = self.stage.faults, (self.stage.kind.behavior, self.names[to])
        match trouble:
            case "refuse":
                faults.refuse("append", entity=entity)
            case "fail":
                faults.fail("append", entity=entity)
            case "lose":
                faults.lose_answer("append", entity=entity)

    def called_with(self, request: Request, call: Callable[[], Any]) -> Any:
        """Calls both; what is refused at once is refused by both."""
        expected = got = None
        answer: Any = None
        try:
            self.model.send(request)
        except RefusedAtOnceError as error:
            expected = error.failed
        try:
            answer = call()
        except ego.EgoError as error:
            got = error
        if (expected is None) != (got is None) or (got is not None and expected and not fits(expected, got)):
            raise self.mismatch(f"{request} was to be {expected or 'accepted'}, and {got!r} came")
        if expected is not None:
            self.statistics.count(expected)
            return None
        return answer

    def misuse(self, name: str, to: int) -> None:
        ref, engine, command = self.refs[to], self.stage.engine, Do(Order("add", 1, 0))
        stranger: Any = Stranger()
        nobody = f"nobody-{self.program.seed}"
        calls: dict[str, tuple[Failed, Callable[[], object]]] = {
            "timeout": (failed("ValueError"), lambda: ref.send(command, timeout=0)),
            "command_id": (failed("ValueError"), lambda: ref.send(command, command_id="")),
            "metadata": (failed("MessageTooLargeError"), lambda: ref.send(command, metadata={"key": "x" * 100_000})),
            "stranger": (failed("UnhandledCommandError", entity_id=self.names[to]), lambda: ref.send(stranger)),
            "nobody": (failed("EntityNotFoundError", entity_id=nobody), lambda: engine.send_command(nobody, command)),
            "nameless": (failed("UndefinedEntityError"), lambda: engine.send_command("", command)),
        }
        self.refused(*calls[name])

    def refused(self, expected: Failed, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            if not fits(expected, error):
                raise self.mismatch(f"{expected} was to be raised, and {error!r} was") from error
        else:
            raise self.mismatch(f"{expected} was to be raised, and nothing was")
        self.statistics.count(expected)

    # What is compared.

    async def settled(self) -> None:
        """Waits until the engine has come as far as the model, and compares."""
        if self.behind():
            await self.stage.until(lambda: not self.behind(), self.program.seed, self.describe)
        open_still: list[tuple[Request, asyncio.Future[Any]]] = []
        for request, future in self.pending:
            if request.outcome is not None:
                self.check(request, future)
            elif future.done():
                raise self.mismatch(f"{request} is under way, and {shown(future)} came")
            else:
                open_still.append((request, future))
        self.pending = open_still
        if self.calls != self.model.ran:
            raise self.mismatch(f"{self.model.ran} handlers were to be called, and {self.calls} were")
        if self.stage.is_open:
            await self.compare_states(self.model.touched)
            self.compare_residents()
            self.model.touched.clear()

    async def finished(self, which: Callable[[Request], bool] = lambda _: True) -> None:
        """Opens one gate after the other until nobody waits there, or nobody of those that are meant."""
        while gates := [gate for gate, held in self.model.held() if which(held)]:
            self.open(gates[0])
            self.model.settle()
            await self.settled()
            await turns()

    def behind(self) -> bool:
        if self.calls < self.model.ran or any(r.outcome is not None and not f.done() for r, f in self.pending):
            return True
        asking = {turn.order.mark for turn in self.model.turns() if turn.order and turn.stage == "asks"}
        return self.asking != asking or self.gates.keys() != set(self.model.gates())

    def describe(self) -> str:
        late = [request for request, future in self.pending if request.outcome is not None and not future.done()]
        calls = f"{self.model.ran - self.calls} calls of handlers"
        return f"{late}, {calls}, others than {self.asking} that ask and {[*self.gates]} at gates"

    def check(self, request: Request, future: asyncio.Future[Any]) -> None:
        outcome = request.outcome
        if outcome is None:
            return
        self.statistics.count(outcome)
        if future.cancelled():
            if not request.may_be_cancelled and outcome != failed("CancelledError"):
                raise self.mismatch(f"{request} was cancelled")
            return
        error = future.exception()
        if isinstance(outcome, Failed):
            right = error is not None and fits(outcome, error)
        else:
            right = error is None and same(outcome, future.result())
        if not right:
            raise self.mismatch(f"{request} was to get {outcome}, and {shown(future)} came")

    async def compare_states(self, indices: Iterable[int]) -> None:
        """Compares what is stored of entities of which nobody has the turn."""
        for index in indices:
            entity = self.model.entities[index]
            if entity.turn is not None:
                continue
            found = await self.state_of(index)
            entity.used = self.model.now
            if not same(Answered(entity.value, entity.revision), found):
                raise self.mismatch(f"{entity.name} was to be at {entity.value}, {entity.revision}, and is at {found}")

    def compare_residents(self) -> None:
        """Compares who is in memory."""
        for index, name in enumerate(self.names):
            expected = self.model.is_resident(index)
            if expected not in (None, self.stage.engine.is_resident(self.stage.kind.behavior, name)):
                raise self.mismatch(f"{name} was to be {'in' if expected else 'out of'} memory, and is not")

    async def state_of(self, index: int) -> Any:
        """Its state, after the handler of a command that nobody waits for any more."""
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    return await self.refs[index].state(timeout=None)
                except ego.MailboxFullError:
                    await asyncio.sleep(0)

    def mismatch(self, text: str) -> MismatchError:
        return MismatchError(self.program.seed, f"after operation {self.place}: {text}")

    def check_logged(self) -> None:
        """Compares what was logged in the end."""
        expected = sorted((self.names[index], name) for index, name in self.model.logged)
        got = sorted(entry for entry in self.stage.logged if entry[0] in self.names)
        if expected != got:
            raise self.mismatch(f"{expected} was to be logged, and {got} was")


async def awaited(future: asyncio.Future[Any]) -> Any:
    return await future


def order_of(request: Request) -> Order:
    return request.order or Order("nothing", 0, 0)


def named(expected: int | str | None) -> Any:
    return {"must exist": ego.MUST_EXIST, "must not exist": ego.MUST_NOT_EXIST}.get(str(expected), expected)


def same(outcome: Answered, found: Any) -> bool:
    state, revision = found
    return isinstance(state, Page | Cover) and (state.value, revision) == (outcome.value, outcome.revision)


def fits(outcome: Failed, error: BaseException) -> bool:
    if type(error).__name__ != outcome.name:
        return False
    return all(str(getattr(error, name, None)) == str(value) for name, value in outcome.facts)


def shown(future: asyncio.Future[Any]) -> str:
    if future.cancelled():
        return "a cancellation"
    error = future.exception()
    return repr(future.result()) if error is None else f"{error!r} with {vars(error)}"


async def happen(operation: Operation, place: int, stage: Stage, running: list[Running]) -> None:
    """What happens to the engine or the clock happens to all programs."""
    for each in running:
        each.place = place
        each.statistics.steps += 1
        each.statistics.operations[operation.name] += 1
    match operation.name:
        case "advance":
            seconds = stage.world.seconds[place]
            for each in running:
                each.model.advance(seconds)
                each.model.settle()
            stage.clock.advance(seconds)
        case "restart":
            await restart(stage, running)
        case "poison":
            await poison(stage, running, operation.seed)
            await halt(stage, running)
        case _:
            await halt(stage, running)


async def restart(stage: Stage, running: list[Running]) -> None:
    """Stops while commands are under way: they are finished, and nobody else is let in."""
    # Nobody could tell when a handler is done whose caller has gone.
    for each in running:
        await each.finished(lambda held: held.outcome is not None)
    stopping = asyncio.ensure_future(stage.engine.stop())
    stage.is_open = False
    await asyncio.sleep(0)
    for each in running:
        each.refused(failed("EngineNotStartedError"), partial(each.refs[0].send, Do(Order("add", 1, 0))))
        await each.finished()
    report = await stopping
    if not report.finished:
        raise MismatchError(stage.world.seed, f"{report} after everything was finished")
    await stage.start(running)


async def halt(stage: Stage, running: list[Running]) -> None:
    """Stops without waiting: whoever is left is told how far his command came."""
    held = [request for each in running for request in each.model.under_way()]
    queued = sum(request.status == "queued" for request in held)
    report = await stage.engine.stop(timeout=0.001)
    stage.is_open = False
    for each in running:
        each.model.stop_at_once()
        each.gates.clear()
        each.asking.clear()
    if (report.queued, report.running, report.waiting) != (queued, len(held) - queued, 0):
        raise MismatchError(stage.world.seed, f"{queued} were queued of {len(held)}, and {report} came")
    await asyncio.sleep(0)
    await stage.start(running)


async def poison(stage: Stage, running: list[Running], seed: int) -> None:
    """A write fails, or nobody hears of it: whoever is in flight behind it does not know, and no more is taken."""
    stage.is_open = False
    idle = [(each, each.model.idle()[0]) for each in running if each.model.idle()]
    if not idle:
        return
    for each, to in idle:
        await each.warm(to)
    first, to = idle[0]
    with stage.faults.hold("append", entity=(stage.kind.behavior, first.names[to])):
        for number, (each, to) in enumerate(idle):
            request = Request(to, Order("add", seed % 1000, each.history.mark()))
            if number == 1:
                request.trouble = "lose" if seed % 2 else "fail"
                each.ask_for(request.trouble, to)
            elif number > 1:
                request.trouble = "fail"
            each.send(Send(request))
    for each, _ in idle:
        each.model.settle()
        await each.settled()
    for each, to in idle[1:]:
        each.send(Send(Request(to, Order("add", 1, each.history.mark()))))
        await each.settled()


async def run_world(world: World, programs: list[Program], stores: tuple[Store, Store | None]) -> Statistics:
    """Runs programs of one world side by side. Raises `MismatchError`."""
    stage, statistics = Stage(world, *stores), Statistics(programs=len(programs))
    log = logging.getLogger("ego")
    log.addHandler(stage)
    was, log.propagate = log.propagate, False
    try:
        await stage.start([])
        running = [Running(each, stage, statistics) for each in programs]
        for place in sorted({place for each in programs for place, _ in each.operations}):
            shared = world.operations.get(place)
            if shared is not None:
                await happen(shared, place, stage, running)
            else:
                for each in running:
                    await each.perform(place)
            for each in running:
                await each.settled()
            # What was told and waits in a mailbox now shows nowhere.
            await turns()
        await restart(stage, running)
        for each in running:
            await finish(each)
        await stage.engine.stop()
        for each in running:
            each.check_logged()
    finally:
        log.propagate = was
        log.removeHandler(stage)
        if stage.engine.started:
            await stage.engine.stop(timeout=0.001)
    return statistics


async def finish(running: Running) -> None:
    """After the last restart: every entity, and every command that is remembered."""
    await running.settled()
    await running.compare_states(range(ENTITIES))
    for index, entity in enumerate(running.model.entities):
        for command_id, command in list(entity.commands.items())[-6:]:
            running.send(Send(Request(index, command.order, command_id=command_id)))
            running.model.settle()
            await running.settled()
            await running.finished()


Make = Callable[[], tuple[Store, Store | None]]
"""Makes empty stores, the second for durable states."""


def check(
    seeds: Iterable[int], durable: bool, make: Make, run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> Statistics:
    """Runs the programs of these numbers. Raises `MismatchError`, after one that fails alone was made shorter."""
    statistics = Statistics()
    worlds: dict[int, list[Program]] = {}
    for seed in seeds:
        worlds.setdefault(seed // PER_WORLD, []).append(program(seed, durable))
    for programs in worlds.values():
        try:
            statistics.add(run(run_world(programs[0].world, programs, make())))
        except MismatchError as error:
            own = program(error.seed, durable)

            def fails(shorter: Program) -> MismatchError | None:
                try:
                    run(run_world(shorter.world, [shorter], make()))
                except MismatchError as error:
                    return error
                return None

            raise shortest(own, fails) or error from None
    return statistics


def shortest(own: Program, fails: Callable[[Program], MismatchError | None]) -> MismatchError | None:
    """Leaves operations out while it still fails; none where it does not fail alone."""
    error = fails(own)
    if error is None:
        return None
    for size in (10, 3, 1):
        for start in range(len(own.operations), -1, -size):
            shorter = replace(own, operations=own.operations[:start] + own.operations[start + size :])
            if len(shorter.operations) < len(own.operations) and (found := fails(shorter)):
                own, error = shorter, found
    left = ", ".join(f"{place} {operation.name}" for place, operation in own.operations)
    return MismatchError(own.seed, f"{error}\n  alone, with the operations {left}")
