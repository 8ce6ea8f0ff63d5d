"""One engine at a time for one store object.

A store is opened when an engine starts and closed when it stops, both in a thread since both wait for the disk. A
thread cannot be stopped: where a start is cancelled, what it opened is closed before another engine may have it.
"""

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ego._errors import ConfigError
from ego._seam import NativeClock, NativeStore, after_fork_in_child

if TYPE_CHECKING:
    from asyncio import Future

os.register_at_fork(after_in_child=after_fork_in_child)


class AnyStore(ABC):
    """What an engine asks of a store object."""

    keeps_states: bool = True
    """Whether it keeps durable states besides events."""

    @abstractmethod
    async def open_for(self, engine: str, clock: NativeClock | None) -> NativeStore:
        """Opens the store for an engine, on the engine's clock. Called by `Engine.start`."""

    @abstractmethod
    async def close(self) -> None:
        """Closes the store and lets the next engine have it. Called by `Engine.stop`."""


class OwnedStore(AnyStore):
    """A store object with one journal, open for one engine at a time."""

    def __init__(self) -> None:
        self._owner: str | None = None
        self._journal: NativeStore | None = None

    @abstractmethod
    def _open(self, clock: NativeClock | None) -> NativeStore:
        """Opens the journal; runs in a thread."""

    def _close(self, journal: NativeStore) -> None:
        """Closes the journal; runs in a thread."""
        journal.close()

    async def open_for(self, engine: str, clock: NativeClock | None) -> NativeStore:
        if self._owner is not None:
            raise ConfigError(
                f"{self!r} is in use by engine {self._owner!r}; stop that engine, or give {engine!r} a store of its own"
            )
        self._owner = engine
        import asyncio

        opening = asyncio.ensure_future(asyncio.to_thread(self._open, clock))
        try:
            journal = await asyncio.shield(opening)
        except BaseException:
            if opening.done():
                self._give_up(opening)
            else:
                opening.add_done_callback(self._give_up)
            raise
        self._journal = journal
        return journal

    async def close(self) -> None:
        import asyncio

        journal, self._journal = self._journal, None
        if journal is None:
            return
        closing = asyncio.ensure_future(asyncio.to_thread(self._close, journal))
        closing.add_done_callback(self._let_go)
        await asyncio.shield(closing)

    def _let_go(self, _closed: object) -> None:
        self._owner = None

    def _give_up(self, opening: "Future[NativeStore]") -> None:
        try:
            if not opening.cancelled() and opening.exception() is None:
                self._close(opening.result())
        finally:
            self._owner = None


def check_store(option: str, store: object) -> AnyStore:
    """Refuses what is no store object."""
    if not isinstance(store, AnyStore):
        raise ConfigError(f"{option} must be an ego.LogStore or ego.MemoryStore, not {store!r}", option=option)
    return store
