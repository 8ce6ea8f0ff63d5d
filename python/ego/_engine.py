"""The engine: what a user starts, sends commands to, and stops.

The work is done in the native half. Here are the life cycle, the kinds, and the way from a name to an entity.
"""

import time
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, overload

import msgspec

from ego._behaviors import AnyBehavior, Behavior, DurableStateBehavior, EventSourcedBehavior
from ego._config import check_entity_id, check_int, check_name, check_seconds
from ego._errors import (
    ConfigError,
    DurableStateStoreRequiredError,
    EgoError,
    EngineNotStartedError,
    EntityNotFoundError,
    KindConflictError,
    StorageError,
)
from ego._expected import Expected
from ego._kinds import Kind, check_passivate_after
from ego._logging import log_opened, logger
from ego._projections import Fail, Policy, Projection, Projections, SQLiteReadModel
from ego._registry import Registered, Registry, check_behaviors
from ego._seam import Cursor, EntityRef, NativeEngine, NativeStore, context
from ego._stores import LogStore, MemoryStore
from ego._stores.owned import AnyStore, check_store

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime

    from ego.testing import Clock, FaultyStore

C = TypeVar("C")
S = TypeVar("S")

MAX_MAILBOX_CAPACITY: Final = 2**31 - 1
MAX_RESIDENT_LIMIT: Final = 2**31 - 1


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
    projections: int = 0
    """Projections whose handler had not returned; they go on from the event that it was at."""
    failure: StorageError | None = None
    """The failed write after which the store took no more; whoever it concerned was told."""


class Engine:
    """Runs entities on a store.

    Making one does nothing but check its arguments. `async with engine:` starts it and stops it again; so do `start`
    and `stop`. A stopped engine can be started again, and then trusts nothing but the store. It is started and stopped
    on one event loop, where `async def` handlers run; coroutines of other loops and threads may call it as well.

    `state_store` keeps the durable states, where they are not to be in `store` with the events. `mailbox_capacity` is
    how many commands may wait for one entity. `resident_limit` is how many entities stay in memory at most, those that
    are used most; `None`: all of them.
    """

    _phase: Literal["stopped", "starting", "started", "stopping"] = "stopped"

    def __init__(
        self,
        name: str,
        store: "LogStore | MemoryStore | FaultyStore",
        *,
        behaviors: Iterable[type[AnyBehavior] | Kind[Any, Any]] = (),
        state_store: "LogStore | MemoryStore | FaultyStore | None" = None,
        mailbox_capacity: int = 1024,
        resident_limit: int | None = None,
        clock: "Clock | None" = None,
    ) -> None:
        self._name = check_name("name", name)
        self._store = check_store("store", store)
        self._state_store = self._store if state_store is None else check_store("state_store", state_store)
        capacity = check_int("mailbox_capacity", mailbox_capacity, 1, MAX_MAILBOX_CAPACITY)
        limit = None if resident_limit is None else check_int("resident_limit", resident_limit, 1, MAX_RESIDENT_LIMIT)
        self._clock = clock
        native_clock = None if clock is None else clock.native
        self._native = NativeEngine(name, mailbox_capacity=capacity, resident_limit=limit, clock=native_clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kinds = Registry(self._native)
        self._projections = Projections(self._native)
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

        self._kinds.follow_upcasts()
        self._phase, self._loop = "starting", asyncio.get_running_loop()
        try:
            await self._open(self._loop)
        except BaseException:
            self._phase, self._loop = "stopped", None
            raise
        self._phase = "started"

    async def _open(self, loop: "asyncio.AbstractEventLoop") -> None:
        import asyncio

        native_clock = None if self._clock is None else self._clock.native
        opened: list[NativeStore] = []
        try:
            for store in self._stores:
                journal = await store.open_for(self._name, native_clock)
                opened.append(journal)
                log_opened(self._name, journal.opened())
            self._native.start(opened[0], opened[1] if len(opened) > 1 else None, loop)
            if self._clock is not None:
                self._clock.attach(self._native, loop)
        except BaseException:
            await asyncio.gather(*(store.close() for store in self._stores[: len(opened)]))
            raise

    @property
    def _stores(self) -> "list[AnyStore]":
        return [self._store] if self._state_store is self._store else [self._store, self._state_store]

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
        projections = 0
        failure: StorageError | None = None
        started = time.monotonic()
        try:
            if at_home:
                self._projections.leave()
            self._native.refuse_outside()
            try:
                if at_home:
                    async with asyncio.timeout(deadline):
                        await self._native.drained()
            except TimeoutError:
                logger().warning("engine %s: not everything was finished within %s s", self._name, deadline)
            finally:
                if at_home:
                    rest = None if deadline is None else max(0.0, started + deadline - time.monotonic())
                    projections = await self._projections.end(rest)
                else:
                    await self._projections.abandon()
                left = self._native.finish()
        finally:
            try:
                closed = await asyncio.gather(*map(self._close, self._stores))
                failure = next((each for each in closed if each is not None), None)
            finally:
                self._phase, self._loop = "stopped", None
        finished = not any(left.values()) and not projections and failure is None
        return StopReport(finished=finished, projections=projections, failure=failure, **left)

    async def _close(self, store: AnyStore) -> StorageError | None:
        try:
            await store.close()
        except StorageError as error:
            logger().error("engine %s: the store was closed after a failure: %s", self._name, error)
            return error
        return None

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

    def get(self, kind: type[Behavior[C, S]], entity_id: str) -> EntityRef[C, S]:
        """The entity of that kind and id, which may not exist yet. Registers the kind if it is new; no I/O."""
        self._check_started()
        return self._native.ref(self._kind_of(kind, entity_id).number, entity_id)

    async def entity(
        self, behavior: EventSourcedBehavior[C, Any, S], *, passivate_after: float | None = None
    ) -> EntityRef[C, S]:
        """Declares the event-sourced entity of this object and loads it.

        Once it is declared, declaring it again changes nothing. `passivate_after` is for how many seconds this entity
        may be idle before it leaves the memory; `None`: what its kind says.
        """
        self._check_started()
        _check_sort(behavior, EventSourcedBehavior)
        return await self._declare(behavior, passivate_after)

    async def durable_state_entity(
        self, behavior: DurableStateBehavior[C, S], *, passivate_after: float | None = None
    ) -> EntityRef[C, S]:
        """Declares the durable-state entity of this object and loads it, as `entity` does with event-sourced ones."""
        self._check_started()
        _check_sort(behavior, DurableStateBehavior)
        return await self._declare(behavior, passivate_after)

    async def _declare(self, behavior: Behavior[C, S], passivate_after: float | None) -> EntityRef[C, S]:
        if not hasattr(behavior, "id"):
            raise ConfigError(f"{behavior!r} has no id; its __init__ must call super().__init__(entity_id)")
        after = None if passivate_after is None else check_passivate_after(passivate_after)
        number = self._kind_of(type(behavior), behavior.id).number
        ref = self._native.ref(number, behavior.id)
        declared = self._native.declare(number, behavior.id, behavior, after)
        try:
            await ref.state(timeout=None)
        except BaseException:
            if declared:
                self._native.undeclare(number, behavior.id, behavior)
            raise
        return ref

    def _kind_of(self, behavior: type[AnyBehavior], entity_id: str) -> Registered:
        registered = self._kinds.of(behavior)
        if registered.is_durable_state and not self._state_store.keeps_states:
            raise DurableStateStoreRequiredError(
                f"{self._state_store!r} keeps no durable states; give engine {self._name!r} a store that does with "
                "state_store=",
                kind=registered.name,
                entity_id=entity_id,
            )
        return registered

    def is_resident(self, kind: type[AnyBehavior] | str, entity_id: str) -> bool:
        """Whether the entity is in memory. Asking does not bring it there."""
        self._check_started()
        check_entity_id(entity_id)
        return self._native.is_resident(self._registered(kind).number, entity_id)

    @overload
    def send_command(
        self,
        entity_id: str,
        command: C,
        *,
        timeout: float | None = 5.0,
        kind: type[Behavior[C, S]],
        expected_revision: int | Expected | None = None,
        command_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, tuple[S, int]]: ...
    @overload
    def send_command(
        self,
        entity_id: str,
        command: object,
        *,
        timeout: float | None = 5.0,
        kind: str | None = None,
        expected_revision: int | Expected | None = None,
        command_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, tuple[Any, int]]: ...
    def send_command(
        self,
        entity_id: str,
        command: Any,
        *,
        timeout: float | None = 5.0,
        kind: type[AnyBehavior] | str | None = None,
        expected_revision: int | Expected | None = None,
        command_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, tuple[Any, int]]:
        """Sends a command to an entity by its id alone: one declared in this run, or stored.

        Accepted at the call, not at the `await`. `kind` says which entity is meant where several kinds have the id. The
        other arguments are those of `EntityRef.send`.
        """
        self._check_started()
        return self._known(entity_id, kind).send(
            command,
            timeout=timeout,
            expected_revision=expected_revision,
            command_id=command_id,
            metadata=metadata,
        )

    async def add_projection(
        self,
        name: str,
        handler: Callable[..., object] | object,
        *,
        events: Iterable[type] | None = None,
        start: "Literal['beginning', 'end'] | int | Cursor | datetime" = "beginning",
        policy: Policy = Fail(),  # noqa: B008 - a frozen value
        batch_size: int = 500,
        into: SQLiteReadModel | None = None,
    ) -> None:
        """Has `handler` called with every stored event, in order of position, from now on and from where it stood last.

        `handler` is a function or coroutine function that takes an `EventEnvelope`, or an object with a method `handle`
        that does, or with `handle_batch`, which takes a list of them. `events` are the types it wants; without them
        what its parameter is annotated with, or all. `start` counts where the projection has no offset yet: a position
        or a cursor after which it starts, or the time from which on. `policy` says what happens when the handler
        raises. At most `batch_size` events go into one call of `handle_batch`, and into one transaction.

        The offset is kept in the store under `name`: each event is handled at least once. With `into` the handler takes
        a transaction as well, and the offset moves in the same one: exactly once.

        Raises `ProjectionError` where there is one of that name, or where its offset is not one of this store.
        """
        self._check_started()
        self._check_at_home("add_projection")
        await self._projections.add(
            name, handler, events=events, start=start, policy=policy, batch_size=batch_size, into=into
        )

    async def remove_projection(self, name: str) -> None:
        """Ends a projection after the event that it is at. Its offset stays: added again, it goes on from there.

        Raises `ProjectionError` where there is none of that name.
        """
        self._check_started()
        self._check_at_home("remove_projection")
        await self._projections.remove(name)

    async def is_projection_running(self, name: str) -> bool:
        """Whether there is a projection of that name that handles events."""
        self._check_started()
        return self._projections.is_running(name)

    def projection(self, name: str) -> Projection:
        """The projection of that name, to look after it. Raises `ProjectionError` where there is none."""
        self._check_started()
        return self._projections.get(name)

    def _check_at_home(self, what: str) -> None:
        import asyncio

        if asyncio.get_running_loop() is not self._loop:
            raise EgoError(f"{what} is for the event loop on which engine {self._name!r} was started")

    def stats(self) -> dict[str, int]:
        """Counters of this engine and its store since it was started, in one consistent snapshot."""
        self._check_started()
        return self._native.stats() | self._projections.stats()

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


def _check_sort(behavior: object, wanted: type) -> None:
    if not isinstance(behavior, wanted):
        raise ConfigError(f"the behavior must be an object of an ego.{wanted.__name__}, not {behavior!r}")


def _in_a_handler() -> bool:
    try:
        context()
    except LookupError:
        return False
    return True
