"""A store with troubles, over one without."""

from ego._seam import NativeClock, NativeStore
from ego._stores import LogStore, MemoryStore
from ego._stores.owned import AnyStore
from ego.testing._faults import Faults


class FaultyStore(AnyStore):
    """`store`, with what goes wrong by the script of `faults`.

    After a failed write a start goes on from what `store` holds. With `keeps_states=False` it is a store for events
    alone, with which an engine refuses durable states.
    """

    def __init__(self, store: LogStore | MemoryStore, faults: Faults, *, keeps_states: bool = True) -> None:
        self._store = store
        self._faults = faults
        self._opened: NativeStore | None = None
        self.keeps_states = keeps_states

    def __repr__(self) -> str:
        return f"ego.testing.FaultyStore({self._store!r})"

    async def open_for(self, engine: str, clock: NativeClock | None) -> NativeStore:
        inner = await self._store.open_for(engine, clock)
        place = self._store.path if isinstance(self._store, LogStore) else "memory"
        self._opened = inner.scripted(self._faults.native, place)
        return self._opened

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        await self._store.close()
        if opened is not None:
            # Closed already; this tells of a failed write.
            opened.close()
