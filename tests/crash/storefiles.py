"""A look at a store from outside: its events as bytes, its files as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ego import _native

SHARDS = 128
SEGMENT_BYTES = 64 << 20
MAX_UNIT_BYTES = 16 << 20


class Place(NamedTuple):
    file: Path
    offset: int


class Contents(NamedTuple):
    opened: dict[str, object]
    payloads: dict[str, list[bytes]]


def contents(store: Path) -> Contents:
    """Opens the store with the options that `LogStore` has by default, reads everything, closes it."""
    journal = _native.Store.open_log(
        str(store),
        shards=SHARDS,
        segment_bytes=SEGMENT_BYTES,
        max_unit_bytes=MAX_UNIT_BYTES,
        max_queue_bytes=1 << 26,
        clock=None,
    )
    try:
        payloads: dict[str, list[bytes]] = {}
        position = 0
        while page := journal.read_from(position + 1, 1_000):
            position = page[-1][3]
            for _, name, revision, _, _, _, _, payload, _ in page:
                history = payloads.setdefault(name, [])
                history.append(payload)
                assert revision == len(history)
        return Contents(journal.opened(), payloads)
    finally:
        journal.close()


def files(store: Path) -> dict[Path, bytes]:
    """All but the lock file, which names whoever opened the store last."""
    return {path: path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file() and path.name != "LOCK"}


def place_of(store: Path, payload: bytes) -> Place:
    """The one place in the store's files where `payload` stands."""
    places: list[Place] = []
    for path, content in files(store).items():
        offset = content.find(payload)
        while offset >= 0:
            places.append(Place(path, offset))
            offset = content.find(payload, offset + 1)
    assert len(places) == 1, f"expected one place, found {places}"
    return places[0]


def flip_byte(place: Place) -> None:
    with open(place.file, "r+b") as file:
        file.seek(place.offset)
        value = file.read(1)[0]
        file.seek(place.offset)
        file.write(bytes([value ^ 0x40]))
