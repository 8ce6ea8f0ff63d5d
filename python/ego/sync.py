"""The engine for threads: the same names as in `ego`, and every call waits.

It is a facade and no second engine: an `ego.Engine` runs on an event loop of its own, in a thread of its own, where
`async def` handlers run too. A command runs on the caller's thread, which then waits for the disk with the interpreter
lock released. Any number of threads may call. Nothing here may be called where an event loop runs or in a plain
handler: it would hold up what it waits for.
"""

import asyncio
import atexit
import concurrent.futures
import os
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, cast, final, overload

from ego._behaviors import AnyBehavior, Behavior, DurableStateBehavior, EventSourcedBehavior
from ego._config import check_seconds
from ego._engine import Engine as AsyncEngine
from ego._engine import StopReport
from ego._errors import EgoError, EngineNotStartedError, ForkedStoreError
from ego._expected import Expected
from ego._kinds import Kind
from ego._projections import DeadLetter, Fail, Policy, ProjectionStatus, SQLiteReadModel
from ego._projections import Projection as AsyncProjection
from ego._seam import Cursor, EventEnvelope, call, call_state, check_may_block
from ego._seam import EntityRef as NativeRef
from ego._stores import LogStore, MemoryStore

if TYPE_CHECKING:
    from datetime import datetime

    from ego.testing import Clock, FaultyStore

__all__ = ["Engine", "EntityRef", "Projection"]

C = TypeVar("C")
S = TypeVar("S")
C_contra = TypeVar("C_contra", contravariant=True)
S_co = TypeVar("S_co", covariant=True)
T = TypeVar("T")

LAST_STOP_SECONDS: Final = 5.0
"""How long the commands under way have where nobody waits for the stop."""


@final
class EntityRef(Generic[C_contra, S_co]):
    """One entity, for the threads that send to it."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: NativeRef[C_contra, S_co]) -> None:
        self._native = native

    @property
    def id(self) -> str:
        """The entity's id."""
        return self._native.id

    @property
    def kind(self) -> str:
        """The entity's kind."""
        return self._native.kind

    def send(
        self,
        command: C_contra,
        /,
        *,
        timeout: float | None = 5.0,
        expected_revision: int | Expected | None = None,
        command_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[S_co, int]:
        """Sends a command and waits for `(state, revision)`."""
        return call(self._native, command, timeout, expected_revision, command_id, metadata)

    def tell(self, command: C_contra, /) -> None:
        """Sends a command without an answer. What goes wrong with it is logged."""
        self._native.tell(command)

    def state(self, *, timeout: float | None = 5.0) -> tuple[S_co, int]:
        """Waits for `(state, revision)` without a command."""
        return call_state(self._native, timeout)

    @property
    def native(self) -> NativeRef[C_contra, S_co]:
        """The same entity for coroutines."""
        return self._native

    @property
    def _entity(self) -> object:
        return self._native

    def __eq__(self, other: object, /) -> bool:
        return isinstance(other, EntityRef) and self._entity == other._entity

    def __hash__(self) -> int:
        return hash(self._native)

    def __repr__(self) -> str:
        return f"<ego.sync.EntityRef {self.kind}/{self.id}>"


class Engine:
    """`ego.Engine` for code without an event loop.

    `with engine:` starts it and stops it again; so do `start` and `stop`. Its arguments are those of `ego.Engine`.
    """

    _home: "_Home | None" = None

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
        self._engine = _Inner(
            name,
            store,
            behaviors=behaviors,
            state_store=state_store,
            mailbox_capacity=mailbox_capacity,
            resident_limit=resident_limit,
            clock=clock,
        )
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The engine's name, for logs and messages."""
        return self._engine.name

    @property
    def started(self) -> bool:
        """Whether commands are accepted."""
        return self._engine.started and self._home is not None and self._home.is_ours

    def __repr__(self) -> str:
        return repr(self._engine).replace("ego.", "ego.sync.", 1)

    def start(self) -> None:
        """Opens the store and takes commands from now on."""
        check_may_block()
        with self._lock:
            if self._home is not None:
                raise EgoError(f"engine {self.name!r} cannot be started: it is started, or being started or stopped")
            home = self._home = _Home(self._engine)
        try:
            home.run(self._engine.start())
        except BaseException:
            home.end()
            self._home = None
            raise

    def stop(self, *, timeout: float | None = 30.0) -> StopReport:
        """Refuses new commands, finishes the accepted ones, closes the store and ends the thread.

        Of several threads that stop it one gets the report, the others `EngineNotStartedError`. A `SystemExit` or
        `KeyboardInterrupt` of an `async def` handler has stopped it already, and is raised here.
        """
        check_seconds("timeout", timeout)
        check_may_block()
        engine = self._here()
        with self._lock:
            home, self._home = self._home, None
        if home is None:
            raise EngineNotStartedError(f"engine {self.name!r} is not started, or another thread stops it")
        try:
            return home.run(engine.stop(timeout=timeout))
        finally:
            home.end()
            if home.failure is not None:
                raise home.failure

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._home is not None and self._home.is_ours:
            self.stop()

    def __del__(self) -> None:
        if self._home is not None and self._home.is_ours and not self._home.exiting:
            warnings.warn(f"{self!r} was not stopped", ResourceWarning, stacklevel=1, source=self)
            self._home.leave()

    def get(self, kind: type[Behavior[C, S]], entity_id: str) -> EntityRef[C, S]:
        """The entity of that kind and id, which may not exist yet. Registers the kind if it is new; no I/O."""
        return EntityRef(self._here().get(kind, entity_id))

    def entity(
        self, behavior: EventSourcedBehavior[C, Any, S], *, passivate_after: float | None = None
    ) -> EntityRef[C, S]:
        """Declares the event-sourced entity of this object and loads it, as `ego.Engine.entity` does."""
        return EntityRef(self._run(self._here().entity(behavior, passivate_after=passivate_after)))

    def durable_state_entity(
        self, behavior: DurableStateBehavior[C, S], *, passivate_after: float | None = None
    ) -> EntityRef[C, S]:
        """Declares the durable-state entity of this object and loads it."""
        return EntityRef(self._run(self._here().durable_state_entity(behavior, passivate_after=passivate_after)))

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
    ) -> tuple[S, int]: ...
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
    ) -> tuple[Any, int]: ...
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
    ) -> tuple[Any, int]:
        """Sends a command to an entity by its id alone and waits, as `ego.Engine.send_command` does."""
        known = self._here().known(entity_id, kind)
        return call(known, command, timeout, expected_revision, command_id, metadata)

    def is_resident(self, kind: type[AnyBehavior] | str, entity_id: str) -> bool:
        """Whether the entity is in memory. Asking does not bring it there."""
        return self._here().is_resident(kind, entity_id)

    def add_projection(
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
        """Has `handler` called with every stored event, as `ego.Engine.add_projection` does; on the engine's thread."""
        self._run(
            self._here().add_projection(
                name, handler, events=events, start=start, policy=policy, batch_size=batch_size, into=into
            )
        )

    def remove_projection(self, name: str) -> None:
        """Ends a projection after the event that it is at. Its offset stays: added again, it goes on from there."""
        self._run(self._here().remove_projection(name))

    def is_projection_running(self, name: str) -> bool:
        """Whether there is a projection of that name that handles events."""
        return self._run(self._here().is_projection_running(name))

    def projection(self, name: str) -> "Projection":
        """The projection of that name, to look after it. Raises `ProjectionError` where there is none."""
        return Projection(self._run, self._here().projection(name))

    def stats(self) -> dict[str, int]:
        """Counters of this engine and its store since it was started, in one consistent snapshot."""
        return self._here().stats()

    def _here(self) -> "_Inner":
        home = self._home
        if home is not None and not home.is_ours:
            raise ForkedStoreError(
                f"engine {self.name!r} was started by process {home.process}, and this one was forked from it; start "
                "an engine after the fork",
                pid=home.process,
            )
        return self._engine

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        home = self._home
        try:
            check_may_block()
            if home is None:
                raise EngineNotStartedError(f"engine {self.name!r} is not started")
        except BaseException:
            coroutine.close()
            raise
        return home.run(coroutine)


class Projection:
    """`ego.Projection` for threads."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], inner: AsyncProjection) -> None:
        self._run = run
        self._inner = inner

    @property
    def name(self) -> str:
        """Under which name its offset is kept."""
        return self._inner.name

    def __repr__(self) -> str:
        return repr(self._inner).replace("ego.", "ego.sync.", 1)

    def status(self) -> ProjectionStatus:
        """How it is now."""
        status: ProjectionStatus = self._run(_made(self._inner.status))
        return status

    def wait_for(self, ref: EntityRef[Any, Any], revision: int, *, timeout: float | None = 5.0) -> None:
        """Waits until it has handled an entity's events up to a revision, as `ego.Projection.wait_for` does."""
        native = ref.native if isinstance(cast("object", ref), EntityRef) else ref
        self._run(self._inner.wait_for(cast("NativeRef[Any, Any]", native), revision, timeout=timeout))

    def dead_letters(self) -> list[DeadLetter]:
        """The events that it has passed over, in order of position."""
        letters: list[DeadLetter] = self._run(_made(self._inner.dead_letters))
        return letters

    def envelope(self, letter: DeadLetter) -> EventEnvelope[Any]:
        """The event of a dead letter, read from the store."""
        envelope: EventEnvelope[Any] = self._run(self._inner.envelope(letter))
        return envelope

    def retry(self, *letters: DeadLetter) -> int:
        """Calls the handler with these dead letters again, or with all; how many it has taken: those are gone."""
        taken: int = self._run(self._inner.retry(*letters))
        return taken

    def discard(self, *letters: DeadLetter) -> None:
        """Forgets these dead letters. The events stay in the store."""
        self._run(self._inner.discard(*letters))


async def _made(make: Callable[[], T]) -> T:
    return make()


class _Inner(AsyncEngine):
    """The engine that does the work; whoever holds it says so if it is not stopped."""

    def __del__(self) -> None:
        pass

    def let_visitors_leave(self) -> None:
        """Waits until no thread is on its way into the engine, for a second at most.

        A thread that the interpreter ends while native code is on its stack takes the process with it.
        """
        limit = time.monotonic() + 1.0
        while self._native.count_visitors() and time.monotonic() < limit:
            time.sleep(0.001)

    def known(self, entity_id: str, kind: type[AnyBehavior] | str | None) -> NativeRef[Any, Any]:
        """The entity of that id, declared in this run or stored."""
        self._check_started()
        return self._known(entity_id, kind)


class _Home:
    """The event loop of one run, and its thread.

    The thread ends when it is told to, when a handler ends the loop, and with the interpreter, which waits for it: it
    is a daemon only so that other threads may still call while the interpreter waits for those.
    """

    failure: BaseException | None = None
    """What ended the loop."""
    _is_open: bool = True
    exiting: bool = False
    """Whether the interpreter ends, which has been said."""

    def __init__(self, engine: _Inner) -> None:
        self.process = os.getpid()
        self._engine = engine
        self._told = asyncio.Event()
        self._lock = threading.RLock()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._live, name=f"ego {engine.name}", daemon=True)
        self._thread.start()
        _homes.add(self)

    @property
    def is_ours(self) -> bool:
        """Whether it is a thread of this process, and not of the one that this was forked from."""
        return self.process == os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there and waits for what it comes to."""
        with self._lock:
            if not self._is_open:
                coroutine.close()
                raise self._gone() from self.failure
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._gone() from self.failure
        except BaseException:
            future.cancel()
            raise

    def _gone(self) -> EngineNotStartedError:
        return EngineNotStartedError(f"engine {self._engine.name!r} was stopped meanwhile")

    def leave(self) -> None:
        """Tells the thread to end, and does not wait for it."""
        with self._lock:
            if self._is_open:
                self._loop.call_soon_threadsafe(self._told.set)

    def end(self) -> None:
        """Ends the thread."""
        self.leave()
        self._thread.join()

    def end_at_exit(self) -> None:
        """Ends the thread without a stop: nothing that needs another thread can be done any more."""
        if self.is_ours:
            self.exiting = True
            self.end()
            self._engine.let_visitors_leave()
            left = repr(self._engine).replace("ego.", "ego.sync.", 1)
            warnings.warn(f"{left} was not stopped", ResourceWarning, stacklevel=1)

    def _live(self) -> None:
        try:
            try:
                self._runner.run(self._until_told())
            except BaseException as failure:
                self.failure = failure
            self._runner.run(self._wind_up())
            if not self.exiting:
                self._runner.close()
                return
            # Whoever is blocked stays so: a thread that is woken while the interpreter ends has nothing to go back to.
            self._loop.set_exception_handler(lambda _loop, _context: None)
            self._loop.close()
        finally:
            _homes.discard(self)

    async def _until_told(self) -> None:
        await self._told.wait()

    async def _wind_up(self) -> None:
        with self._lock:
            self._is_open = False
        # What was to run here before that has begun now, so that the runner ends it.
        await asyncio.sleep(0)
        if self._engine.started and not self.exiting:
            await self._engine.stop(timeout=LAST_STOP_SECONDS)


_homes: set[_Home] = set()


@atexit.register
def _end_all() -> None:
    for home in [*_homes]:
        home.end_at_exit()
