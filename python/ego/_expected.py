"""What a command may expect of its entity besides an exact revision."""

import enum
from typing import Final


class Expected(enum.Enum):
    """The values of `expected_revision=` that are no numbers."""

    MUST_EXIST = "must exist"
    """Something is stored: any revision above 0."""
    MUST_NOT_EXIST = "must not exist"
    """Nothing is stored. 0 says the same."""

    def __str__(self) -> str:
        return self.value


MUST_EXIST: Final = Expected.MUST_EXIST
MUST_NOT_EXIST: Final = Expected.MUST_NOT_EXIST
