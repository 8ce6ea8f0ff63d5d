"""A read model in a SQLite file that each event reaches exactly once.

The handler writes through a transaction in which the offset moves too, so a crash leaves both or neither, and the
offset in the file is the one that counts. One projection in one process owns the file of a version; everybody may read
it, with a connection of their own (write-ahead log: readers and the writer do not wait for each other).

What a runner does, on one event loop:

    await model.open(projection, store_id)       # StoreLockedError, StoreFormatError, ProjectionError, StorageError
    position = await model.offset()              # None: no offset yet; the runner decides where to start
    batch = model.begin()                        # StorageError: try again later
    transaction = batch.event()                  # for each event, or for all of them with handle_batch
    handler(envelope, transaction)               # awaited where it is async; one at a time
    batch.keep()                                 # or batch.undo() where it raised
    await batch.commit(position)                 # on disk; also with no event, to move past what was filtered out
    batch.abandon()                              # instead of commit: stop, cancel, error
    await model.close()

Three kinds of failure, told apart by what `event`, `keep`, `undo` and `commit` raise, whatever the handler raised:

- nothing, and the handler raised: its own fault. After `undo` the policy decides; the batch goes on.
- `StorageError`: not the handler's fault. `abandon`, wait, and go on from `await model.offset()`.
- `TransactionLostError`: the handler's fault, but what other events of the batch wrote is gone as well. `abandon`,
  go on from `await model.offset()` with one event a batch; where it comes again, it is that event's failure.

So the runner calls `undo` before it looks at what the handler raised.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from ego._config import check_int
from ego._errors import ConfigError, StorageError
from ego._projections._blue_green import file_of, serve, served
from ego._projections._sqlite_file import SQLiteFile
from ego._projections._transaction import Batch, ReadModelTransaction

if TYPE_CHECKING:
    from ego._projections._diff import ReadModelDifference

T = TypeVar("T")
Hook = Callable[[ReadModelTransaction], object]
MAX_VERSION: Final = 2**31 - 1
CHECKPOINT_TIMEOUT_MS: Final = 1_000


class SQLiteReadModel:
    """A read model at `path`, made when it is first opened; its parent must exist.

    Readers open `path`, which is a link to the file of the `version` that is served: the first one that was built, and
    another one after a switch. `create` makes the tables of a new file. `reset` empties it for a rebuild; without it
    everything in the file is dropped, and `create` runs again. Both get a transaction, as handlers do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: int = 1,
        create: Hook | None = None,
        reset: Hook | None = None,
    ) -> None:
        self._path = _checked_path(path)
        self._version = check_int("version", version, 1, MAX_VERSION)
        self._create = _checked_hook("create", create)
        self._reset = _checked_hook("reset", reset)
        self._file: SQLiteFile | None = None

    @property
    def path(self) -> str:
        """What readers open, absolute: a link to the file of the version that is served."""
        return self._path

    @property
    def file(self) -> str:
        """The file of this version, absolute."""
        return file_of(self._path, self._version)

    @property
    def version(self) -> int:
        """The version that this object builds."""
        return self._version

    @property
    def is_served(self) -> bool:
        """Whether who opens `path` now gets this version."""
        return served(self._path) == self.file

    def __repr__(self) -> str:
        return f"ego.SQLiteReadModel({self._path!r}, version={self._version})"

    async def open(self, projection: str, store_id: bytes) -> None:
        """Opens or makes the file for a projection over a store, and serves it where no version is served yet."""
        if self._file is not None:
            raise ConfigError(f"{self!r} is in use by a projection; give each projection a read model of its own")
        file = self._file = SQLiteFile(self.file, projection, self._version, store_id)
        try:
            await file.open(lambda: self._call(file, self._create))
            try:
                await file.run(self._serve_the_first)
            except BaseException:
                await file.close()
                raise
        except BaseException:
            self._file = None
            raise

    async def close(self) -> None:
        """Closes it after the commit that is under way. What was not committed is lost. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            await file.close()

    async def offset(self) -> int | None:
        """The position up to which every event is in the file, as the file says; `None` before the first commit."""
        file = self._opened()
        return await file.run(_guarded, file, file.offset)

    def begin(self) -> Batch:
        """Begins a transaction. One at a time."""
        return Batch.begin(self._opened())

    async def rebuild(self, position: int | None) -> None:
        """Empties the read model and moves its offset, in one transaction. Between two batches."""
        file = self._opened()

        def rebuild() -> None:
            file.tell("BEGIN IMMEDIATE")
            try:
                if self._reset is None:
                    file.drop_everything()
                    self._call(file, self._create)
                else:
                    self._call(file, self._reset)
                file.set_offset(position)
                file.commit()
            except BaseException:
                file.roll_back()
                raise

        await file.run(_guarded, file, rebuild)

    async def switch(self) -> None:
        """Has readers get this version from now on. Between two batches; nothing changes where it raises.

        Everything is moved from the write-ahead log into the file first. `StorageError` where a reader prevents that.
        """
        file = self._opened()

        def switch() -> None:
            file.checkpoint(CHECKPOINT_TIMEOUT_MS)
            serve(self._path, self._version)

        await file.run(_guarded, file, switch)

    async def difference_from(self, version: int) -> "ReadModelDifference":
        """Compares this version with another one, row by row. Runs in a thread of its own, beside the writer."""
        import asyncio

        from ego._projections._diff import diff

        other = file_of(self._path, check_int("version", version, 1, MAX_VERSION))
        return await asyncio.to_thread(diff, other, self.file)

    def _serve_the_first(self) -> None:
        if served(self._path) is None:
            serve(self._path, self._version)

    def _call(self, file: SQLiteFile, hook: Hook | None) -> None:
        if hook is None:
            return
        batch = Batch(file)
        transaction = batch.event()
        try:
            hook(transaction)
        except BaseException:
            batch.undo()
            raise
        batch.keep()

    def _opened(self) -> SQLiteFile:
        if self._file is None:
            raise StorageError(f"{self!r} is not open", path=self.file)
        return self._file


def _guarded(file: SQLiteFile, function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        if (judged := file.as_error(error)) is error:
            raise
        raise judged from error


def _checked_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path must be a str or a path object, not {path!r}", option="path")
    name = os.fspath(cast("os.PathLike[str]", path))
    if not isinstance(cast("object", name), str) or not name or "\0" in name or name.endswith("/"):
        raise ConfigError(f"path must be the name of a file, not {name!r}", option="path")
    return os.path.abspath(name)


def _checked_hook(option: str, hook: object) -> Hook | None:
    if hook is not None and not callable(hook):
        raise ConfigError(f"{option} must be a function that takes a transaction, not {hook!r}", option=option)
    return cast("Hook | None", hook)
