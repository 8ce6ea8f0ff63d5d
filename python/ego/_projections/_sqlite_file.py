"""The file of a read model: one connection that writes it, one thread that waits for the disk, one owner.

Its offset is a row of a reserved table, in the same transaction as what handlers wrote; no other place counts.

    _ego_offset(id = 1, format, store_id, projection, version, position)

`position` is NULL until a first batch is committed. Names that begin with `_ego_` are reserved. The file is owned
through a lock on `FILE-lock` beside it, which a crash releases; that file stays, and may be deleted while nobody runs.
Nothing here opens the database itself other than through SQLite: closing it would drop the locks that SQLite has.
"""

import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from ego._errors import ForkedStoreError, ProjectionError, StorageError, StoreFormatError, StoreLockedError
from ego._projections._sqlite_errors import as_store_error

if TYPE_CHECKING:
    import sqlite3
    from concurrent.futures import ThreadPoolExecutor

FORMAT: Final = 1
OFFSET_TABLE: Final = "_ego_offset"
OPENING_TIMEOUT: Final = 5.0
HARMLESS_PRAGMAS: Final = frozenset({
    "collation_list", "compile_options", "data_version", "database_list", "defer_foreign_keys", "foreign_key_check",
    "foreign_key_list", "function_list", "index_info", "index_list", "index_xinfo", "integrity_check", "quick_check",
    "table_info", "table_list", "table_xinfo",
})  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")


class SQLiteFile:
    """The opened file at `path`. Made, used and closed as `SQLiteReadModel` says."""

    def __init__(self, path: str, projection: str, version: int, store_id: bytes) -> None:
        self.path = path
        self.connection: sqlite3.Connection
        self._projection = projection
        self._version = version
        self._store_id = store_id
        self._pid = os.getpid()
        self._engine_speaks = False
        self._refusal: str | None = None
        # SQLite asks about a statement when it is prepared, not when a prepared one runs again: with a text that
        # nobody can guess, no handler is handed what was prepared for the engine.
        self._mark = f" -- {os.urandom(8).hex()}"
        self._lock = -1
        self._thread: ThreadPoolExecutor

    async def open(self, prepare: Callable[[], None]) -> None:
        """Opens it in its thread. `prepare` runs in the transaction that makes a new file's offset."""
        from concurrent.futures import ThreadPoolExecutor

        self._thread = ThreadPoolExecutor(1, "ego-read-model")
        try:
            await self.run(self._open, prepare)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes it after whatever is under way; what is not committed is lost."""
        try:
            await self.run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs it in the thread. It goes on where its caller is cancelled."""
        import asyncio

        self.check_process()
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(function, *args, **kwargs)))

    def check_process(self) -> None:
        """Raises in a child of a fork: SQLite's locks and the thread are not there."""
        if os.getpid() != self._pid:
            raise ForkedStoreError(
                f"the read model {self.path} was opened before a fork, by process {self._pid}, and is used in its"
                " child; open it in the child instead",
                path=self.path,
                pid=self._pid,
            )

    def tell(self, statement: str, parameters: tuple[object, ...] = ()) -> tuple[object, ...] | None:
        """Runs a statement of the engine; returns its first row."""
        self.check_process()
        self._engine_speaks = True
        try:
            cursor = self.connection.execute(statement + self._mark, parameters)
            row: tuple[object, ...] | None = cursor.fetchone()
            cursor.close()
        finally:
            self._engine_speaks = False
        return row

    def commit(self) -> None:
        """Ends the transaction. Waits for the disk."""
        if not self.connection.in_transaction:
            raise StorageError(f"the read model {self.path}: the transaction is gone", path=self.path)
        self.tell("COMMIT")

    def roll_back(self) -> None:
        """Takes the transaction back, where there is one. Does not raise: the next opening takes back a broken one."""
        import contextlib
        import sqlite3

        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.tell("ROLLBACK")

    def offset(self) -> int | None:
        """The position up to which everything is in the file; `None` before the first commit."""
        row = self.tell(f"SELECT position FROM {OFFSET_TABLE}")
        position = None if row is None else row[0]
        return position if isinstance(position, int) else None

    def set_offset(self, position: int | None) -> None:
        """Moves it, in the transaction that is under way."""
        self.tell(f"UPDATE {OFFSET_TABLE} SET position = ?", (position,))

    def drop_everything(self) -> None:
        """Drops what users made, in the transaction that is under way."""
        made = "FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name NOT LIKE '!_ego!_%' ESCAPE '!'"
        order = "ORDER BY type = 'table', sql NOT LIKE 'CREATE VIRTUAL%' LIMIT 1"
        while (row := self.tell(f"SELECT type, name {made} AND type <> 'index' {order}")) is not None:
            kind, name = row
            quoted = str(name).replace('"', '""')
            self.tell(f'DROP {kind} "{quoted}"')

    def checkpoint(self, timeout_ms: int) -> None:
        """Moves all of the write-ahead log into the file. Waits for the disk, and as long as that for readers."""
        self.tell(f"PRAGMA busy_timeout = {timeout_ms}")
        try:
            row = self.tell("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.tell("PRAGMA busy_timeout = 0")
        if row is None or row[0] != 0:
            raise StorageError(
                f"the read model {self.path}: a reader holds on to its write-ahead log; end its transaction, try again",
                path=self.path,
            )

    def refusal(self) -> str | None:
        """Why the last statement of a handler was refused, once."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def as_error(self, error: Exception) -> Exception:
        """What the runner is to see of an error that came while the engine spoke."""
        import sqlite3

        if not isinstance(error, sqlite3.Error):
            return error
        return as_store_error(error, self.path) or StorageError(f"the read model {self.path}: {error}", path=self.path)

    def _open(self, prepare: Callable[[], None]) -> None:
        import sqlite3

        self._take_lock()
        try:
            self.connection = sqlite3.connect(
                self.path, timeout=OPENING_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._set_up(prepare)
        except Exception as error:
            raise self.as_error(error) from error
        sync_directory(self.path)

    def _set_up(self, prepare: Callable[[], None]) -> None:
        mode = self.tell("PRAGMA journal_mode = WAL")
        if mode != ("wal",):
            raise StorageError(
                f"the read model {self.path}: this file system has no write-ahead log: {mode}", path=self.path
            )
        self.tell("PRAGMA synchronous = FULL")
        self.connection.set_authorizer(self._authorize)
        self.tell("BEGIN IMMEDIATE")
        self._check_or_make_offset(prepare)
        self.commit()
        self.tell("PRAGMA busy_timeout = 0")

    def _check_or_make_offset(self, prepare: Callable[[], None]) -> None:
        if self.tell("SELECT 1 FROM sqlite_master WHERE name = ?", (OFFSET_TABLE,)) is None:
            if self.tell("SELECT 1 FROM sqlite_master LIMIT 1") is not None:
                raise StoreFormatError(
                    f"{self.path} is a SQLite database with tables, and no read model; give the read model a file of"
                    " its own",
                    path=self.path,
                )
            self.tell(
                f"CREATE TABLE {OFFSET_TABLE} (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL,"
                " store_id BLOB NOT NULL, projection TEXT NOT NULL, version INTEGER NOT NULL, position INTEGER)"
            )
            self.tell(
                f"INSERT INTO {OFFSET_TABLE} VALUES (1, ?, ?, ?, ?, NULL)",
                (FORMAT, self._store_id, self._projection, self._version),
            )
            prepare()
            return
        found = self.tell(f"SELECT format FROM {OFFSET_TABLE}")
        if found != (FORMAT,):
            raise StoreFormatError(
                f"the read model {self.path} has format {found and found[0]}, and this version of ego reads {FORMAT};"
                " use the version that wrote it, or delete the file and let the projection build it again",
                path=self.path,
            )
        self._check_whose()

    def _check_whose(self) -> None:
        row = self.tell(f"SELECT store_id, projection, version FROM {OFFSET_TABLE}")
        if row is None:
            raise StoreFormatError(f"the read model {self.path} has no offset; delete the file", path=self.path)
        store_id, projection, version = row
        way_out = "give the read model another path, or delete the file and let the projection build it again"
        if (projection, version) != (self._projection, self._version):
            raise ProjectionError(
                f"the read model {self.path} is that of projection {projection!r}, version {version}, not of"
                f" {self._projection!r}, version {self._version}; {way_out}",
                projection=self._projection,
            )
        if store_id != self._store_id:
            raise ProjectionError(
                f"the read model {self.path} was built from store {_hex(store_id)}, and its offset means nothing in"
                f" store {_hex(self._store_id)}; {way_out}",
                projection=self._projection,
            )

    def _take_lock(self) -> None:
        name = f"{self.path}-lock"
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"the read model {self.path} cannot be opened: {error}", path=self.path) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(lock, 0)
            os.pwrite(lock, str(self._pid).encode(), 0)
        except OSError as error:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise StorageError(f"the read model {self.path} cannot be locked: {error}", path=self.path) from error
            raise StoreLockedError(
                f"the read model {self.path} is open for writing in process {holder or 'unknown'}; one projection owns"
                " a file, so stop that one, or give this one a path of its own",
                path=self.path,
                pid=int(holder) if holder.isdecimal() else None,
            ) from None
        self._lock = lock

    def _close(self) -> None:
        try:
            if (connection := getattr(self, "connection", None)) is not None:
                connection.close()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _authorize(self, action: int, first: str | None, second: str | None, _file: str | None, _by: str | None) -> int:
        import sqlite3

        if self._engine_speaks:
            return sqlite3.SQLITE_OK
        names = {name.lower() for name in (first, second) if name is not None}
        if action == sqlite3.SQLITE_TRANSACTION:
            self._refusal = f"a handler must not run {first}: the engine begins and commits, together with the offset"
        elif action == sqlite3.SQLITE_SAVEPOINT and "_ego_event" in names:
            self._refusal = "the savepoint _ego_event is the engine's; give yours another name"
        elif action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            self._refusal = "a handler must not attach or detach files: a commit over several is not one commit"
        elif action == sqlite3.SQLITE_PRAGMA and first is not None and first.lower() not in HARMLESS_PRAGMAS:
            self._refusal = f"a handler must not run PRAGMA {first}"
        elif OFFSET_TABLE in names and action not in (sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT):
            self._refusal = f"a handler must not change {OFFSET_TABLE}: it belongs to the engine"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


def sync_directory(path: str) -> None:
    """Makes what was created or renamed beside `path` outlive a crash of the machine."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _hex(store_id: object) -> str:
    return store_id.hex() if isinstance(store_id, bytes) else repr(store_id)
