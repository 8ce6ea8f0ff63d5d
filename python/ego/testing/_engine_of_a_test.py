"""The engines of one pytest test, and what has to be right about them at its end."""

import asyncio
from collections.abc import Awaitable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from ego._behaviors import AnyBehavior
from ego._engine import StopReport
from ego._kinds import Kind
from ego.testing import _waiting
from ego.testing._engine import Engine
from ego.testing._errors import ArrangementError
from ego.testing._faults import Faults

T = TypeVar("T")


class EngineOfATest(Engine):
    """An engine whose end the fixture looks at."""

    def __init__(self, *arguments: Any, faults: Faults | None = None, **options: Any) -> None:
        super().__init__(*arguments, faults=faults, **options)
        self._faults = faults
        self._runner: asyncio.Runner | None = None
        self._report: StopReport | None = None

    def run(self, awaitable: Awaitable[T]) -> T:
        """Runs a coroutine of a plain test on the loop of this engine."""
        if self._runner is None:
            raise ArrangementError(f"{self!r} runs on the loop of its test: write await instead of run")

        async def awaited() -> T:
            return await awaitable

        return self._runner.run(awaited())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.started:
            self._report = await self.stop(timeout=_waiting.GUARD)

    def begin(self, runner: asyncio.Runner) -> None:
        """Starts it on a loop of the fixture's."""
        self._runner = runner
        self.run(self.start())

    def end(self) -> Iterator[str]:
        """Stops it if it still runs. Gives what is wrong with its end."""
        if self.started and self._runner is not None:
            self._report = self.run(self.stop(timeout=_waiting.GUARD))
        if self.started:
            yield f"{self!r} was left open: write `async with ego_engine(...) as engine:`"
            if self._loop is not None and self._loop.is_closed():
                asyncio.run(self.stop(timeout=_waiting.GUARD))
        if (report := self._report) is not None:
            if report.queued or report.running or report.waiting:
                yield f"{self!r} left commands without an end: {report}"
            if report.failure is not None and self._faults is None:
                yield f"{self!r} lost a write: {report.failure!r}"
        if self._faults is not None:
            yield from (f"a fault did not happen: {each}" for each in self._faults.unused())


class Engines:
    """Makes the engines of one test: `ego_engine(Account, Order)`, with the options of `ego.testing.Engine`."""

    def __init__(self) -> None:
        self._made: list[EngineOfATest] = []
        self._runner: asyncio.Runner | None = None

    def __call__(self, *behaviors: type[AnyBehavior] | Kind[Any, Any], **options: Any) -> EngineOfATest:
        engine = EngineOfATest(behaviors, **options)
        self._made.append(engine)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._runner is None:
                self._runner = asyncio.Runner()
            engine.begin(self._runner)
        return engine

    def end(self) -> list[str]:
        """Stops what still runs, and gives what is wrong."""
        try:
            return [problem for engine in self._made for problem in engine.end()]
        finally:
            if self._runner is not None:
                self._runner.close()
