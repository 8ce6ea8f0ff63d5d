"""Waiting for what happens, never for time. The guard only ends a test that would hang."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

GUARD: Final = 10.0


async def guarded(awaited: Awaitable[T], what: str) -> T:
    """Awaits it; fails and says what was waited for if it takes 10 seconds."""
    guard = asyncio.timeout(GUARD)
    try:
        async with guard:
            return await awaited
    except TimeoutError:
        if guard.expired():
            raise AssertionError(f"waited {GUARD:g} s in vain for {what}") from None
        raise


async def until(condition: Callable[[], bool], what: str) -> None:
    """Looks after every turn of the loop, until the condition holds."""

    async def turns() -> None:
        while not condition():  # noqa: ASYNC110 (nothing tells; the loop itself is watched)
            await asyncio.sleep(0)

    await guarded(turns(), what)


class Moment:
    """Something that comes once, and is waited for on any loop."""

    def __init__(self) -> None:
        self._has_come = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def come(self) -> None:
        """It is there. May be called from any thread."""
        self._has_come = True
        for loop, event in list(self._waiting):
            loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Returns when it has come."""
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        self._waiting.append(waiting)
        try:
            if not self._has_come:
                await waiting[1].wait()
        finally:
            self._waiting.remove(waiting)
