"""Time that a test moves."""

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from ego._seam import NativeClock, NativeEngine
from ego.testing._errors import ArrangementError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved, for `ego.Engine(clock=...)`.

    It starts on 2030-01-01. Engines that share it live in the same time, and so do the stores that they open.
    """

    def __init__(self) -> None:
        self.native = NativeClock()
        """The clock as the native half wants it."""
        self._engines: WeakKeyDictionary[NativeEngine, AbstractEventLoop] = WeakKeyDictionary()

    def now(self) -> datetime:
        """The time, in UTC."""
        return EPOCH + timedelta(microseconds=self.native.wall_nanos() // 1000)

    def advance(self, seconds: float) -> None:
        """Moves the clock. What is due by then has happened when this returns, on the loop that calls it.

        Engines of other loops are told to look.
        """
        if not 0 <= seconds < math.inf:
            raise ArrangementError(f"a clock moves forward by a number of seconds, not {seconds!r}")
        self.native.advance(round(seconds * 1e9))
        here = _running_loop()
        for engine, loop in list(self._engines.items()):
            if loop is here:
                engine.look()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(engine.look)

    def attach(self, engine: NativeEngine, loop: "AbstractEventLoop") -> None:
        """Has an engine look whenever the clock moves. Called by `Engine.start`."""
        self._engines[engine] = loop

    def __repr__(self) -> str:
        return f"<ego.testing.Clock {self.now():%Y-%m-%d %H:%M:%S.%f}>"


def _running_loop() -> "AbstractEventLoop | None":
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
