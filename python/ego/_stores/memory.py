"""The store without a disk: for tests, and for what may be lost with the process."""

from ego._seam import NativeClock, NativeStore
from ego._stores.owned import OwnedStore


class MemoryStore(OwnedStore):
    """Events in memory. They stay as long as the store object, also over stop and start of the engines that use it."""

    def __init__(self) -> None:
        super().__init__()
        self._content: NativeStore | None = None

    def __repr__(self) -> str:
        return f"ego.MemoryStore() at {id(self):#x}"

    def _open(self, clock: NativeClock | None) -> NativeStore:
        if self._content is None:
            self._content = NativeStore.memory(clock)
        return self._content

    def _close(self, journal: NativeStore) -> None:
        """Keeps the content for the next engine."""
