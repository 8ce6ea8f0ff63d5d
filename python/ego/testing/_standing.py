"""What `ego.context()` says in a handler under test."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from ego._seam import Context, KindSpec, running
from ego.testing._clock import Clock


class Carried(NamedTuple):
    """What a command carries besides itself."""

    command_id: str | None = None
    metadata: Mapping[str, str] | None = None


class Standing:
    """The context of one command, from its call to the end of its handler."""

    def __init__(
        self, spec: KindSpec, entity_id: str, number: int, command: object, carried: Carried, clock: Clock | None
    ) -> None:
        self._context = Context.standing(
            spec,
            entity_id,
            number,
            command,
            command_id=carried.command_id,
            metadata=carried.metadata,
            clock=None if clock is None else clock.native,
        )

    @contextmanager
    def entered(self) -> Generator[None]:
        """Code in it runs in the handler."""
        before = running.set(self._context)
        try:
            yield
        finally:
            running.reset(before)

    def close(self) -> None:
        """The handler has ended."""
        self._context.close()


@contextmanager
def outside() -> Generator[None]:
    """Code in it runs in no handler, as when an entity is read."""
    before = running.set(None)
    try:
        yield
    finally:
        running.reset(before)
