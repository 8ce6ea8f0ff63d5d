"""A clock that a test moves."""

from typing import Any

from ego import _native


class HandClock:
    """What an engine takes as its clock."""

    def __init__(self) -> None:
        self.native = _native.Clock()

    def advance(self, seconds: float) -> None:
        """Moves it on."""
        self.native.advance(int(seconds * 1e9))


def hand_clock() -> Any:
    """Stands still until it is moved."""
    return HandClock()
