"""An engine for tests: a store in memory unless there is another, and ways to wait for what it does."""

from collections.abc import Iterable
from typing import Any

from ego._behaviors import AnyBehavior
from ego._engine import Engine as EgoEngine
from ego._engine import StopReport
from ego._kinds import Kind
from ego._seam import EntityRef
from ego._stores import LogStore, MemoryStore
from ego.testing._clock import Clock
from ego.testing._faults import Faults
from ego.testing._faulty_store import FaultyStore
from ego.testing._waiting import guarded, until


class Engine(EgoEngine):
    """An `ego.Engine` with helpers. Those that wait do so for what happens, and fail after 10 seconds without it.

    `faults` are the troubles of `store`; the other options are those of `ego.Engine`.
    """

    def __init__(
        self,
        behaviors: Iterable[type[AnyBehavior] | Kind[Any, Any]] = (),
        *,
        name: str = "test",
        store: LogStore | MemoryStore | None = None,
        clock: Clock | None = None,
        faults: Faults | None = None,
        **options: Any,
    ) -> None:
        inner = MemoryStore() if store is None else store
        used = inner if faults is None else FaultyStore(inner, faults)
        super().__init__(name, used, behaviors=behaviors, clock=clock, **options)

    async def restart(self) -> StopReport:
        """Stops and starts it on the same store. References stay valid."""
        report = await self.stop()
        await self.start()
        return report

    async def settled(self) -> None:
        """Returns once no command is queued, running or waiting for the disk."""
        self._check_started()
        await guarded(self._native.drained(), f"{self!r} to finish all commands")

    async def until_queued(self, ref: EntityRef[Any, Any], count: int = 1) -> None:
        """Returns once so many commands wait for the entity's turn."""
        number = self._registered(ref.kind).number
        await until(
            lambda: self._native.count_queued(number, ref.id) >= count,
            f"{count} commands to wait for {ref.kind}/{ref.id}",
        )

    async def until_passivated(self, ref: EntityRef[Any, Any]) -> None:
        """Returns once the entity is not in memory."""
        await until(lambda: not self.is_resident(ref.kind, ref.id), f"{ref.kind}/{ref.id} to leave the memory")
