"""Where a projection stands, and where it starts that has not stood anywhere."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Final, Literal, cast

import msgspec

from ego._errors import ConfigError, ProjectionError
from ego._seam import Cursor, NativeEngine

Start = Literal["beginning", "end"] | int | Cursor | datetime

MAX_POSITION: Final = 2**63 - 1


def note_of(projection: str) -> str:
    """Under which name the store keeps the offset of a projection."""
    return f"offset/{projection}"


async def read(native: NativeEngine, projection: str) -> int | None:
    """The offset that the store keeps; `None` where there is none yet."""
    name = note_of(projection)
    value = dict(await native.notes(name)).get(name)
    return None if value is None else msgspec.msgpack.decode(value, type=int)


def write(native: NativeEngine, projection: str, position: int, *, soon: bool) -> Awaitable[None]:
    """Stores it: with the next batch, or in one of its own. Nobody has to wait for it."""
    return native.note(note_of(projection), msgspec.msgpack.encode(position), soon=soon)


def check_reached(native: NativeEngine, projection: str, position: int) -> int:
    """Refuses an offset that the store has never reached: its events would be passed over as they come."""
    last = native.last_position()
    if position > last:
        raise ProjectionError(
            f"projection {projection!r} stands at {position}, and the store ends at {last}: it is not the store that "
            "the projection has read; start it under another name, or remove what it has written and begin again",
            projection=projection,
        )
    return position


def check_start(start: object) -> Start:
    """Refuses what is no place to start at."""
    if start in ("beginning", "end") or isinstance(start, Cursor):
        return cast("Start", start)
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigError(f"start must be a datetime with a time zone, not {start!r}", option="start")
        return start
    if isinstance(start, int) and not isinstance(start, bool) and 0 <= start <= MAX_POSITION:
        return start
    raise ConfigError(
        f'start must be "beginning", "end", a position from 0 on, a cursor or a datetime, not {start!r}',
        option="start",
    )


async def resolve(native: NativeEngine, projection: str, start: Start) -> int:
    """The position after which a projection starts."""
    if start == "beginning":
        return 0
    if start == "end":
        return native.last_position()
    if isinstance(start, datetime):
        return await native.position_at(max(0, round(start.timestamp() * 1_000_000) * 1_000))
    if isinstance(start, Cursor):
        if start.store_id != native.store_id():
            raise ProjectionError(f"cursor {start} is one of another store", projection=projection)
        start = start.position
    return check_reached(native, projection, int(start))
