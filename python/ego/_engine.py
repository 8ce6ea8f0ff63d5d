"""The engine: what a user starts, sends commands to, and stops.

The work is done in the native half. Here are the life cycle, the kinds, and the way from a name to an entity.
"""

import warnings
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, overload

import msgspec

from ego._behaviors import AnyBehavior, EventSourcedBehavior
from ego._config import check_entity_id, check_int, check_name, check_seconds
from ego._errors import (
    ConfigError,
    EgoError,
    EngineNotStartedError,
    EntityNotFoundError,
    KindConflictError,
    StorageError,
)
from ego._kinds import Kind
from ego._logging import log_opened, logger
from ego._registry import Registered, Registry, check_behaviors
from ego._seam import EntityRef, NativeEngine, context
from ego._stores import LogStore, MemoryStore
from ego._stores.owned import check_store

if TYPE_CHECKING:
    import asyncio

C = TypeVar("C")
S = TypeVar("S")

MAX_MAILBOX_CAPACITY: Final = 2**31 - 1


class StopReport(msgspec.Struct, frozen=True):
    """What a stop left behind. `queued`, `running` and `waiting` count commands that got no answer in time."""

    finished: bool
    """Everything that was accepted was finished."""
    queued: int
    """Commands that had not begun and never will."""
    running: int
    """Commands whose handler had not returned."""
    waiting: int
    """Commands whose events the disk had not confirmed; they may be stored."""
    failure: StorageError | None = None
    """The failed write after which the store took no more; whoever it concerned was told."""


class Engine:
    """Runs event-sourced entities on a store.

    Making one does nothing but check its arguments. `async with engine:` starts it and stops it again; so do `start`
    and `stop`. A stopped engine can be started again, and then trusts nothing but the store. It belongs to the event
    loop and thread that started it.
    """

    _phase: Literal["stopped", "starting", "started", "stopping"] = "stopped"

    def __init__(
        self,
        name: str,
        store: LogStore | MemoryStore,
        *,
        behaviors: Iterable[type[AnyBehavior] | Kind[Any, Any]] = (),
        mailbox_capacity: int = 1024,
    ) -> None:
        self._name = check_name("name", name)
        self._store = check_store(store)
        capacity = check_int("mailbox_capacity", mailbox_capacity, 1, MAX_MAILBOX_CAPACITY)
        self._native = NativeEngine(name, mailbox_capacity=capacity)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kinds = Registry(self._native)
        for behavior in check_behaviors(behaviors):
            self._kinds.add(behavior)

    @property
    def name(self) -> str:
        """The engine's name, for logs and messages."""
        return self._name

    @property
    def started(self) -> bool:
        """Whether commands are accepted."""
        return self._phase == "started"

    def __repr__(self) -> str:
        return f"<ego.Engine {self._name!r} {self._phase}>"

    async def start(self) -> None:
        """Opens the store and takes commands from now on, on this event loop and thread."""
        if self._phase != "stopped":
            raise EgoError(f"engine {self._name!r} cannot be started: it is {self._phase}")
        import asyncio

        self._phase, self._loop = "starting", asyncio.get_running_loop()
        try:
            journal = await self._store.open_for(self._name)
            try:
                self._native.start(journal, None, self._loop)
            except BaseException:
                await self._store.close()
                raise
        except BaseException:
            self._phase, self._loop = "stopped", None
            raise
        self._phase = "started"
        log_opened(self._name, journal.opened())

    async def stop(self, *, timeout: float | None = 30.0) -> StopReport:
        """Refuses new commands, finishes the accepted ones, and closes the store.

        What is not finished within `timeout` seconds is left and counted in the report; the store is closed anyway.
        A store that took no more writes is said so in the report: a start goes on from what the disk holds.
        """
        deadline = check_seconds("timeout", timeout)
        self._check_started()
        import asyncio

        at_home = asyncio.get_running_loop() is self._loop
        if not at_home and self._loop is not None and not self._loop.is_closed():
            raise EngineNotStartedError(f"engine {self._name!r} was started on another event loop; stop it there")
        self._phase = "stopping"
        left: dict[str, int] = {}
        failure: StorageError | None = None
        try:
            self._native.refuse_outside()
            try:
                if at_home:
                    async with asyncio.timeout(deadline):
                        await self._native.drained()
            except TimeoutError:
                logger().warning("engine %s: not everything was finished within %s s", self._name, deadline)
            finally:
                left = self._native.finish()
        finally:
            try:
                await self._store.close()
            except StorageError as error:
                logger().error("engine %s: the store was closed after a failure: %s", self._name, error)
                failure = error
            finally:
                self._phase, self._loop = "stopped", None
        return StopReport(finished=not any(left.values()) and failure is None, failure=failure, **left)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._phase == "started":
            await self.stop()

    def __del__(self) -> None:
        if self._phase != "stopped":
            warnings.warn(f"{self!r} was not stopped", ResourceWarning, stacklevel=1, source=self)

    def get(self, kind: type[EventSourcedBehavior[C, Any, S]], entity_id: str) -> EntityRef[C, S]:
        """The entity of that kind and id, which may not exist yet. Registers the kind if it is new; no I/O."""
        self._check_started()
        return self._native.ref(self._kinds.of(kind).number, entity_id)

    async def entity(self, behavior: EventSourcedBehavior[C, Any, S]) -> EntityRef[C, S]:
        """Declares the entity of this object and loads it. Once it is live, declaring it again changes nothing."""
        self._check_started()
        registered = self._kinds.of(type(behavior))
        with registered.declaring(behavior) as entity_id:
            return self._native.load(registered.number, entity_id)

    @overload
    def send_command(
        self,
        entity_id: str,
        command: C,
        *,
        timeout: float | None = 5.0,
        kind: type[EventSourcedBehavior[C, Any, S]],
    ) -> Coroutine[Any, Any, tuple[S, int]]: ...
    @overload
    def send_command(
        self, entity_id: str, command: object, *, timeout: float | None = 5.0, kind: str | None = None
    ) -> Coroutine[Any, Any, tuple[Any, int]]: ...
    def send_command(
        self,
        entity_id: str,
        command: Any,
        *,
        timeout: float | None = 5.0,
        kind: type[EventSourcedBehavior[Any, Any, Any]] | str | None = None,
    ) -> Coroutine[Any, Any, tuple[Any, int]]:
        """Sends a command to an entity by its id alone: one declared in this run, or stored.

        Accepted at the call, not at the `await`. `kind` says which entity is meant where several kinds have the id.
        """
        self._check_started()
        return self._known(entity_id, kind).send(command, timeout=timeout)

    def stats(self) -> dict[str, int]:
        """Counters of this engine and its store since it was started, in one consistent snapshot."""
        self._check_started()
        return self._native.stats()

    def _known(self, entity_id: str, kind: type[AnyBehavior] | str | None) -> EntityRef[Any, Any]:
        check_entity_id(entity_id)
        candidates = list(self._kinds) if kind is None else [self._registered(kind)]
        stored = self._native.stored_kinds(entity_id)
        known = [each for each in candidates if each.name in stored or self._native.is_live(each.number, entity_id)]
        if len(known) == 1:
            return self._native.ref(known[0].number, entity_id)
        if known:
            names = tuple(each.name for each in known)
            raise KindConflictError(
                f"{entity_id!r} is the id of entities of the kinds {', '.join(names)}; say which with kind=",
                entity_id=entity_id,
                kinds=names,
            )
        elsewhere = f"; it is stored as {', '.join(stored)}" if stored else ""
        registered = ", ".join(each.name for each in candidates) or "none"
        raise EntityNotFoundError(
            f"{entity_id!r} was neither declared in this run nor is it stored under a kind asked for ({registered})"
            f"{elsewhere}; use engine.get(Kind, id) for an entity that may be new",
            entity_id=entity_id,
        )

    def _registered(self, kind: type[AnyBehavior] | str) -> Registered:
        if not isinstance(kind, str):
            return self._kinds.of(kind)
        found = self._kinds.named(kind)
        if found is None:
            names = ", ".join(each.name for each in self._kinds) or "none"
            raise ConfigError(
                f"kind {kind!r} is not registered with engine {self._name!r}; it has {names}", option="kind"
            )
        return found

    def _check_started(self) -> None:
        if self._phase == "started" or (self._phase == "stopping" and _in_a_handler()):
            return
        raise EngineNotStartedError(
            f"engine {self._name!r} is {self._phase}; use it inside 'async with engine:' or between start and stop"
        )


def _in_a_handler() -> bool:
    try:
        context()
    except LookupError:
        return False
    return True
