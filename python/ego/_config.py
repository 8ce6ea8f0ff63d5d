"""Checks of options: what is refused is named together with its value, before anything has happened."""

import math
from typing import Final

from ego._errors import ConfigError, InvalidEntityIdError, UndefinedEntityError

MAX_NAME_BYTES: Final = 255


def check_int(option: str, value: object, low: int, high: int) -> int:
    """An `int` (a `bool` is none) from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{option} must be an int from {low} to {high}, not {value!r}", option=option)
    if not low <= value <= high:
        raise ConfigError(f"{option} must be from {low} to {high}, not {value}", option=option)
    return value


def check_name(option: str, value: object) -> str:
    """A `str` of 1 to 255 bytes of UTF-8 without control characters."""
    if not isinstance(value, str):
        raise ConfigError(f"{option} must be a str, not {value!r}", option=option)
    if (problem := _problem_with_name(value)) is not None:
        raise ConfigError(f"{option} must {problem}", option=option)
    return value


def check_entity_id(value: object) -> str:
    """The same for the id of an entity."""
    if not isinstance(value, str):
        raise InvalidEntityIdError(f"an entity id must be a str, not {value!r}", entity_id=value)
    if not value:
        raise UndefinedEntityError("the entity id is empty", entity_id=value)
    if (problem := _problem_with_name(value)) is not None:
        raise InvalidEntityIdError(f"an entity id must {problem}", entity_id=value)
    return value


def _problem_with_name(value: str) -> str | None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return f"be encodable as UTF-8, unlike {value!r}"
    if not 1 <= size <= MAX_NAME_BYTES:
        return f"have 1 to {MAX_NAME_BYTES} bytes, not {size}: {value[:80]!r}"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
        return f"not contain control characters: {value!r}"
    return None


def check_seconds(option: str, value: object) -> float | None:
    """A number of seconds above 0, or `None` for no limit."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{option} must be a number of seconds or None, not {value!r}", option=option)
    if not value > 0 or math.isnan(value):
        raise ConfigError(f"{option} must be above 0 or None, not {value}", option=option)
    return float(value)
