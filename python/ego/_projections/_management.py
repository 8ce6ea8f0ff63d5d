"""The projections of an engine: added, asked, removed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from ego._config import check_int, check_name, check_seconds
from ego._errors import ConfigError, EngineNotStartedError, ProjectionError
from ego._projections import _offset
from ego._projections._dead_letters import DeadLetter
from ego._projections._handler import Handler, names_of
from ego._projections._policies import check_policy
from ego._projections._read_model import SQLiteReadModel
from ego._seam import EntityRef, EventEnvelope, NativeEngine

if TYPE_CHECKING:
    from ego._projections._runner import Runner

MAX_NAME_BYTES = 200
MAX_BATCH_SIZE = 100_000


class ProjectionStatus(msgspec.Struct, frozen=True):
    """How a projection is at one moment."""

    name: str
    state: Literal["running", "retrying", "failed", "stopped"]
    """`retrying`: after a failure of the handler or the store; `failed`: it has stopped at an event."""
    position: int
    """Everything up to here was handled, passed over, or is of no interest to it."""
    lag: int
    """How many positions of the store it is behind; 0 where it is caught up."""
    lag_seconds: float
    """How long ago the first event was stored that it is at; 0 where it is caught up."""
    dead_letters: int
    """How many there are."""
    last_error: BaseException | None
    """What the handler or the store failed with at last."""


class Projection:
    """A projection of an engine, to look after it."""

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner

    @property
    def name(self) -> str:
        """Under which name its offset is kept."""
        return self._runner.name

    def __repr__(self) -> str:
        return f"<ego.Projection {self.name!r} {self._runner.phase}>"

    def status(self) -> ProjectionStatus:
        """How it is now."""
        runner = self._runner
        behind, seconds = runner.lag()
        return ProjectionStatus(
            runner.name, runner.phase, runner.position, behind, seconds, len(runner.letters), runner.error
        )

    async def wait_for(self, ref: EntityRef[Any, Any], revision: int, *, timeout: float | None = 5.0) -> None:
        """Waits until it has handled an entity's events up to a revision, such as the one of an answer.

        Raises `TimeoutError` when that takes longer, `ProjectionError` where the entity is not at that revision yet or
        the projection has stopped before.
        """
        import asyncio

        wanted = check_int("revision", revision, 0, 2**63 - 1)
        if not isinstance(cast("object", ref), EntityRef):
            raise ConfigError(f"ref must be an entity of the engine, not {ref!r}", option="ref")
        async with asyncio.timeout(check_seconds("timeout", timeout)):
            _, reached = await ref.state(timeout=None)
            if reached < wanted:
                raise ProjectionError(
                    f"{ref.kind}/{ref.id} is at revision {reached}, and not at {wanted} yet", projection=self.name
                )
            # The event is durable, so its position is none behind this one.
            await self._runner.reach(self._runner.last_position())

    def dead_letters(self) -> list[DeadLetter]:
        """The events that it has passed over, in order of position."""
        return self._runner.letters.all()

    async def envelope(self, letter: DeadLetter) -> EventEnvelope[Any]:
        """The event of a dead letter, read from the store."""
        return await self._runner.envelope(self._checked([letter])[0].position)

    async def retry(self, *letters: DeadLetter) -> int:
        """Calls the handler with these dead letters again, or with all; how many it has taken: those are gone.

        In order of position, each once; where one fails, later ones of its entity wait. It happens between two other
        events. A crash between the handler and the end of the letter leaves the letter: at least once.
        """
        return await self._runner.retry(self._checked(letters) or self.dead_letters())

    async def discard(self, *letters: DeadLetter) -> None:
        """Forgets these dead letters. The events stay in the store."""
        await self._runner.letters.remove(self._checked(letters))

    def _checked(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        held = {letter.position: letter for letter in self.dead_letters()}
        for letter in letters:
            if not isinstance(cast("object", letter), DeadLetter) or letter.position not in held:
                raise ProjectionError(f"{letter!r} is no dead letter of projection {self.name!r}", projection=self.name)
        return [held[letter.position] for letter in letters]


class Projections:
    """All of one engine, in one run of it."""

    def __init__(self, native: NativeEngine) -> None:
        self._native = native
        self._projections: dict[str, tuple[Projection, Runner]] = {}
        self._starting: set[str] = set()

    async def add(
        self,
        name: str,
        handler: object,
        *,
        events: object,
        start: object,
        policy: object,
        batch_size: int,
        into: SQLiteReadModel | None,
    ) -> None:
        """Checks everything, finds the offset, and starts."""
        # Here, so that who imports ego for its entities does not wait for asyncio.
        from ego._projections._runner import Runner

        check_projection_name(name)
        if into is not None and not isinstance(cast("object", into), SQLiteReadModel):
            raise ConfigError(f"into must be an ego.SQLiteReadModel, not {into!r}", option="into")
        wrapped = Handler(handler, takes_transaction=into is not None)
        runner = Runner(
            self._native,
            name,
            wrapped,
            events=names_of(wrapped.annotated() if events is None else events),
            policy=check_policy("policy", policy),
            batch_size=check_int("batch_size", batch_size, 1, MAX_BATCH_SIZE),
            into=into,
        )
        where = _offset.check_start(start)
        if name in self._projections or name in self._starting:
            raise ProjectionError(f"projection {name!r} is there already; remove it first", projection=name)
        self._starting.add(name)
        try:
            await runner.begin(where)
            if not self._native.started:
                await runner.end()
                raise EngineNotStartedError(f"the engine was stopped while projection {name!r} was added")
        finally:
            self._starting.discard(name)
        self._projections[name] = (Projection(runner), runner)

    async def remove(self, name: str) -> None:
        """Ends one after the event that it is at. Its offset stays."""
        _, runner = self._found(name)
        await runner.end()
        self._projections.pop(name, None)

    def is_running(self, name: str) -> bool:
        """Whether there is one of that name and it handles events."""
        check_projection_name(name)
        found = self._projections.get(name)
        return found is not None and found[1].phase in ("running", "retrying")

    def get(self, name: str) -> Projection:
        """The one of that name."""
        return self._found(name)[0]

    def stats(self) -> dict[str, int]:
        """How many there are, how many have failed, and how many dead letters they have."""
        runners = [runner for _, runner in self._projections.values()]
        return {
            "projections": len(runners),
            "projections_failed": sum(runner.phase == "failed" for runner in runners),
            "dead_letters": sum(len(runner.letters) for runner in runners),
        }

    async def abandon(self) -> None:
        """Forgets all of them: the loop on which they ran is gone."""
        runners = [runner for _, runner in self._projections.values()]
        self._projections.clear()
        for runner in runners:
            await runner.abandon()

    def leave(self) -> None:
        """Has all of them stop after the event that they are at."""
        for _, runner in self._projections.values():
            runner.leave()

    async def end(self, timeout: float | None) -> int:
        """Ends all of them; how many did not end in time."""
        import asyncio

        runners = [runner for _, runner in self._projections.values()]
        self._projections.clear()
        ended = await asyncio.gather(*(runner.end(timeout) for runner in runners))
        return ended.count(False)

    def _found(self, name: str) -> "tuple[Projection, Runner]":
        check_projection_name(name)
        found = self._projections.get(name)
        if found is None:
            there = ", ".join(self._projections) or "none"
            raise ProjectionError(f"there is no projection {name!r}; there are: {there}", projection=name)
        return found


def check_projection_name(name: object) -> str:
    """A name as others, somewhat shorter: the store keeps more under it than the offset."""
    checked = check_name("name", name)
    if len(checked.encode()) > MAX_NAME_BYTES:
        raise ConfigError(f"name must have at most {MAX_NAME_BYTES} bytes: {checked[:80]!r}", option="name")
    return checked
