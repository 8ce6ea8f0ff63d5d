"""What happens when the handler of a projection fails.

All four answer the same four questions: `attempts` (with the first), `delay` (seconds between two of them), `skips` (or
else the projection stops), `park_entity` (later events of the entity wait behind the one that was skipped, in order,
while others go on). A failure of a store is no failure of a handler, and no policy counts it.
"""

import math
from typing import ClassVar, Final, Literal

import msgspec

from ego._config import check_int
from ego._errors import ConfigError

MAX_ATTEMPTS: Final = 2**31 - 1


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """The projection stops at the first failure."""

    attempts: ClassVar[int] = 1
    delay: ClassVar[float] = 0.0
    skips: ClassVar[Literal[False]] = False
    park_entity: ClassVar[Literal[False]] = False


class RetryAndFail(msgspec.Struct, frozen=True, kw_only=True):
    """The handler is called `attempts` times at most, the first included, `delay` seconds apart; then as `Fail`."""

    attempts: int = 5
    delay: float = 1.0
    skips: ClassVar[Literal[False]] = False
    park_entity: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        _check_retries(self.attempts, self.delay)


class Skip(msgspec.Struct, frozen=True, kw_only=True):
    """An event whose handler fails becomes a dead letter at once, and the projection goes on.

    With `park_entity=True` later events of the same entity become dead letters behind it.
    """

    attempts: ClassVar[int] = 1
    delay: ClassVar[float] = 0.0
    skips: ClassVar[Literal[True]] = True
    park_entity: bool = False

    def __post_init__(self) -> None:
        _check_park_entity(self.park_entity)


class RetryAndSkip(msgspec.Struct, frozen=True, kw_only=True):
    """The handler is called `attempts` times at most, the first included, `delay` seconds apart; then as `Skip`."""

    attempts: int = 5
    delay: float = 1.0
    skips: ClassVar[Literal[True]] = True
    park_entity: bool = False

    def __post_init__(self) -> None:
        _check_retries(self.attempts, self.delay)
        _check_park_entity(self.park_entity)


Policy = Fail | RetryAndFail | Skip | RetryAndSkip


def check_policy(option: str, value: object) -> Policy:
    """Refuses what is no policy."""
    if not isinstance(value, Policy):
        raise ConfigError(
            f"{option} must be ego.Fail(), ego.RetryAndFail(), ego.Skip() or ego.RetryAndSkip(), not {value!r}",
            option=option,
        )
    return value


def _check_retries(attempts: object, delay: object) -> None:
    check_int("attempts", attempts, 1, MAX_ATTEMPTS)
    if not isinstance(delay, int | float) or isinstance(delay, bool):
        raise ConfigError(f"delay must be a number of seconds, not {delay!r}", option="delay")
    if not 0 <= delay < math.inf:
        raise ConfigError(f"delay must be 0 or more and finite, not {delay}", option="delay")


def _check_park_entity(value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"park_entity must be True or False, not {value!r}", option="park_entity")
