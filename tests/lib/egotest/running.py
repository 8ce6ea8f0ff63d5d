"""Coroutines run to their end on a fresh loop, asyncio's or uvloop's."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop] | None] = {
    "asyncio": None,
    "uvloop": uvloop.new_event_loop,
}
LIMIT = 60.0


class Run(Protocol):
    def __call__(self, main: Coroutine[Any, Any, T], /) -> T: ...


def runner(loop: str) -> Run:
    """A function that runs a coroutine on a loop of that name; a test that hangs fails."""

    def run(main: Coroutine[Any, Any, T], /) -> T:
        async def limited() -> T:
            async with asyncio.timeout(LIMIT):
                return await main

        with asyncio.Runner(loop_factory=LOOPS[loop]) as each:
            return each.run(limited())

    return run


async def turns(count: int = 5) -> None:
    """Lets everything that is ready on the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)
