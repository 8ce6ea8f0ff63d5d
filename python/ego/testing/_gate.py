"""A place in an `async def` handler where the test decides when it goes on."""

from ego.testing._waiting import Moment, guarded


class Gate:
    """The handler awaits `passed()`; the test awaits `reached()`, and opens the gate when it has seen enough."""

    def __init__(self) -> None:
        self._reached = Moment()
        self._opened = Moment()

    async def passed(self) -> None:
        """Returns once the gate is open."""
        self._reached.come()
        await self._opened.wait()

    async def reached(self) -> None:
        """Returns once somebody stands at the gate."""
        await guarded(self._reached.wait(), "a handler to reach the gate")

    def open(self) -> None:
        """Lets everybody through, now and later."""
        self._opened.come()
