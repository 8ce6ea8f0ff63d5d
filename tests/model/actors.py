"""The entities of the programs as a user of ego writes them: handlers that do what an order says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from model import Order, folded, seen

import ego


class Do(ego.Command):
    order: Order


class Stranger(ego.Command):
    """Of no kind's commands."""


class Added(ego.Event):
    n: int


class Poison(ego.Event):
    """Does not fold."""

    n: int


class Opaque(ego.Event):
    """Cannot be encoded."""

    content: Any


class Page(ego.State):
    value: int = 0
    content: Any = None


class Cover(ego.State):
    """Another type of state."""

    value: int = 0


class RefusedError(ego.Rejection):
    n: int


class UserError(BaseException):
    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n = n


class BrokenError(UserError, Exception):
    """Raised by a handler, and no rejection."""


class ExplodedError(UserError):
    """Not even an `Exception`."""


class MisfoldedError(UserError, Exception):
    """Raised by a fold."""


class Cast(Protocol):
    """What an entity's handlers need of the program that it belongs to."""

    def ref(self, index: int) -> ego.EntityRef[Do, Page]: ...
    def called(self) -> None: ...
    def asks(self, mark: int) -> None: ...
    async def gate(self, gate: int) -> None: ...


Find = Callable[[str], tuple[Cast, int]]
"""The program of an entity's id, and which one of its entities it is."""


def handled(cast: Cast, order: Order, decide: Callable[[int], Any]) -> Any:
    """Does what the order says: `decide` says what the handler returns."""
    cast.called()
    if order.how != "now":
        return _later(cast, order, decide)
    _tell(cast, order)
    return decide(order.n)


async def _later(cast: Cast, order: Order, decide: Callable[[int], Any]) -> Any:
    _tell(cast, order)
    if order.how == "gate":
        await cast.gate(order.mark)
    if order.asks is None:
        return decide(order.n)
    to, asked, timeout = order.asks
    answer = cast.ref(to).send(Do(asked), timeout=timeout)
    cast.asks(order.mark)
    try:
        state, revision = await answer
    except asyncio.CancelledError:
        raise
    except BaseException:
        await cast.gate(-order.mark)
        raise
    await cast.gate(-order.mark)
    return decide(order.n + state.value + revision)


def _tell(cast: Cast, order: Order) -> None:
    for to, told in order.tells:
        cast.ref(to).tell(Do(told))


def _number(cast: Cast, index: int, what: str, n: int) -> int | None:
    """The number to be folded, or none. Raises what the order says."""
    match what:
        case "context":
            where = ego.context()
            return seen(where.entity_id, where.kind, where.revision, where.command_id, where.metadata)
        case "reject":
            raise RefusedError(n)
        case "fail":
            raise BrokenError(n)
        case "explode":
            raise ExplodedError(n)
        case "itself":
            raise AssertionError(f"accepted by itself: {cast.ref(index).send(Do(Order('add', n, 0)))}")
        case "add":
            return n
        case _:
            return None


class Ledger(ego.EventSourcedBehavior[Do, Added | Poison | Opaque, Page]):
    kind = "ledger"

    def __init__(self, entity_id: str, find: Find) -> None:
        super().__init__(entity_id)
        self.cast, self.index = find(entity_id)

    def initial_state(self) -> Page:
        return Page()

    def handle_command(self, command: Do, _state: Page) -> Any | Awaitable[Any]:
        order = command.order
        return handled(self.cast, order, lambda n: self.decide(order.what, n))

    def decide(self, what: str, n: int) -> Any:
        number = _number(self.cast, self.index, what, n)
        if number is not None:
            return Added(number)
        match what:
            case "many":
                return [Added(n), Added(n + 1), Added(n + 2)]
            case "nothing":
                return None
            case "equal":
                return ()
            case "misfold":
                return Added(n), Poison(n)
            case "opaque":
                return [Added(n), Opaque(object())]
            case _:
                return [Added(n), what]

    def handle_event(self, event: Added | Poison | Opaque, state: Page) -> Page:
        match event:
            case Added(n):
                return Page(folded(state.value, n))
            case Poison(n):
                raise MisfoldedError(n)
            case Opaque():
                return state


class Notebook(ego.DurableStateBehavior[Do, Page | Cover]):
    kind = "page"

    def __init__(self, entity_id: str, find: Find) -> None:
        super().__init__(entity_id)
        self.cast, self.index = find(entity_id)

    def initial_state(self) -> Page:
        return Page()

    def handle_command(self, command: Do, version: int, state: Page | Cover) -> Any | Awaitable[Any]:
        order = command.order
        return handled(self.cast, order, lambda n: self.decide(order.what, n, version, state.value))

    def decide(self, what: str, n: int, version: int, value: int) -> Any:
        number = _number(self.cast, self.index, what, n)
        changed = Page(folded(value, n if number is None else number))
        if number is not None:
            return changed, version + 1
        match what:
            case "many":
                return changed, version + 1
            case "nothing":
                return None
            case "equal":
                return Page(value), version
            case "misfold":
                raise MisfoldedError(n)
            case "opaque":
                return Page(n, object()), version + 1
            case "skip":
                return changed, version + 2
            case "cover":
                return Cover(value), version + 1
            case _:
                return what
