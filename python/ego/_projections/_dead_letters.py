"""Events that a projection has passed over, kept in the store until somebody retries or discards them.

The event itself stays where it is in the store; a letter says which one it is, what the handler raised, and how often.
"""

import bisect
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ego._seam import EventEnvelope, NativeEngine

DIGITS: Final = 20
"""A position as it stands in the name of a note: letters are listed in order of position."""


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that a projection has passed over."""

    position: int
    """Its position in the store."""
    kind: str
    """The kind of its entity."""
    entity_id: str
    """The id of its entity."""
    revision: int
    """Its revision."""
    name: str
    """The stored name of its type."""
    error: str
    """Type and text of what the handler raised at last; empty where it waits behind an earlier one of its entity."""
    attempts: int
    """How often the handler was called with it; 0 where it waits behind an earlier one."""
    time: datetime
    """When it was passed over, or retried in vain at last."""

    @property
    def entity(self) -> tuple[str, str]:
        """Whose event it is: kind and id."""
        return self.kind, self.entity_id


class DeadLetters:
    """The dead letters of one projection: in the store, and here."""

    def __init__(self, native: NativeEngine, projection: str) -> None:
        self._native = native
        self._prefix = f"dead/{projection}/"
        self._letters: dict[int, DeadLetter] = {}
        self._of: dict[tuple[str, str], list[int]] = {}

    async def load(self) -> None:
        """Reads what the store holds."""
        for name, value in await self._native.notes(self._prefix):
            digits = name[len(self._prefix) :]
            if len(digits) == DIGITS and digits.isdecimal():
                self._hold(msgspec.msgpack.decode(value, type=DeadLetter))

    def __len__(self) -> int:
        return len(self._letters)

    def __contains__(self, position: int) -> bool:
        return position in self._letters

    def all(self) -> list[DeadLetter]:
        """All of them in order of position."""
        return [self._letters[position] for position in sorted(self._letters)]

    def holds_back(self, envelope: EventEnvelope[Any]) -> bool:
        """Whether an earlier event of its entity is among them."""
        positions = self._of.get((envelope.kind, envelope.entity_id)) if self._of else None
        return positions is not None and positions[0] < envelope.position

    async def add(self, envelope: EventEnvelope[Any], error: BaseException | None, attempts: int) -> None:
        """Stores one, before the projection moves past it."""
        letter = DeadLetter(
            position=envelope.position,
            kind=envelope.kind,
            entity_id=envelope.entity_id,
            revision=envelope.revision,
            name=envelope.name,
            error="" if error is None else described(error),
            attempts=attempts,
            time=datetime.now(UTC),
        )
        await self._native.note(self._note_of(letter), msgspec.msgpack.encode(letter), soon=True)
        self._hold(letter)

    async def remove(self, letters: Iterable[DeadLetter]) -> None:
        """Forgets some, for good."""
        for letter in letters:
            if self._letters.get(letter.position) is not None:
                await self._native.note(self._note_of(letter), None, soon=True)
                self._let_go(letter)

    def _hold(self, letter: DeadLetter) -> None:
        if letter.position not in self._letters:
            bisect.insort(self._of.setdefault(letter.entity, []), letter.position)
        self._letters[letter.position] = letter

    def _let_go(self, letter: DeadLetter) -> None:
        if self._letters.pop(letter.position, None) is not None:
            positions = self._of[letter.entity]
            positions.remove(letter.position)
            if not positions:
                del self._of[letter.entity]

    def _note_of(self, letter: DeadLetter) -> str:
        return f"{self._prefix}{letter.position:0{DIGITS}}"


MAX_ERROR_CHARACTERS: Final = 4_000


def described(error: BaseException) -> str:
    """Type and text of an exception, for those who have only text."""
    try:
        text = str(error)
    except Exception:
        text = "its text cannot be made"
    return f"{type(error).__qualname__}: {text}"[:MAX_ERROR_CHARACTERS]
