"""The store on disk: one append-only log in a directory of its own."""

import os
from typing import Final, cast

from ego._config import check_int
from ego._errors import ConfigError
from ego._seam import NativeClock, NativeStore
from ego._stores.owned import OwnedStore

KIB: Final = 1024
MIB: Final = 1024 * KIB


class LogStore(OwnedStore):
    """A log in the directory `path`, made when it is first opened; its parent must exist.

    `shards` is fixed when the store is made. `segment_bytes` (64 KiB to 2 GiB) is the size of one file of the log,
    `max_unit_bytes` (1 KiB to half a segment) what all events of one command may take together.

    `max_queue_bytes` bounds what is accepted and not yet on the disk: above it commands wait in the mailboxes of their
    entities, and memory does not grow. At least `max_unit_bytes`; by default 64 MiB, or `max_unit_bytes` where that is
    more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shards: int = 128,
        segment_bytes: int = 64 * MIB,
        max_unit_bytes: int = 16 * MIB,
        max_queue_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self._path = _checked_path(path)
        self._shards = check_int("shards", shards, 1, 2**16 - 1)
        self._segment_bytes = check_int("segment_bytes", segment_bytes, 64 * KIB, 2048 * MIB)
        self._max_unit_bytes = check_int("max_unit_bytes", max_unit_bytes, KIB, self._segment_bytes // 2)
        if max_queue_bytes is None:
            max_queue_bytes = max(64 * MIB, max_unit_bytes)
        self._max_queue_bytes = check_int("max_queue_bytes", max_queue_bytes, self._max_unit_bytes, 2**40)

    @property
    def path(self) -> str:
        """The directory of the log, absolute."""
        return self._path

    def __repr__(self) -> str:
        return f"ego.LogStore({self._path!r})"

    def _open(self, clock: NativeClock | None) -> NativeStore:
        return NativeStore.open_log(
            self._path,
            shards=self._shards,
            segment_bytes=self._segment_bytes,
            max_unit_bytes=self._max_unit_bytes,
            max_queue_bytes=self._max_queue_bytes,
            clock=clock,
        )


def _checked_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path must be a str or a path object, not {path!r}", option="path")
    return os.path.abspath(_directory(os.fspath(cast("os.PathLike[str]", path))))


def _directory(path: object) -> str:
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"path must be the name of a directory, not {path!r}", option="path")
    return path
