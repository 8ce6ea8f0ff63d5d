"""One transaction of a read model: what handlers write, and the offset, in one commit or not at all.

Statements of handlers run where the handler runs, and nothing waits there: the write lock is held from the first
moment. Only the commit syncs, in the thread of the read model. A handler that tries to end the transaction, to attach
a file or to write the offset is refused before its statement runs. What SQLite itself rolled back (`INSERT OR
ROLLBACK`, a disk that is full) is noticed before the next statement, so that nothing is ever written outside of the
transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from ego._errors import ProjectionError, StorageError
from ego._projections._sqlite_errors import as_store_error

if TYPE_CHECKING:
    import sqlite3

    from ego._projections._sqlite_file import SQLiteFile

Parameters = Sequence[Any] | Mapping[str, Any]


class TransactionLostError(ProjectionError):
    """The whole transaction was rolled back while a handler ran: everything since it began has to be done again."""


class Rows(Iterator[tuple[Any, ...]]):
    """What a statement found: an iterator over rows, good until its event is done."""

    def __init__(self, transaction: "ReadModelTransaction", cursor: "sqlite3.Cursor") -> None:
        self._transaction = transaction
        self._cursor = cursor

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Any, ...]:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or `None` where there is none left."""
        batch = self._transaction.usable()
        try:
            row: tuple[Any, ...] | None = self._cursor.fetchone()
        except Exception as error:
            batch.raise_for(error)
            raise
        return row

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return list(self)

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed; -1 for a query."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the row that was inserted last."""
        return self._cursor.lastrowid


class ReadModelTransaction:
    """What a handler gets beside the envelope. It writes here; the engine commits, together with the offset.

    Good until the handler has returned. `commit`, `rollback`, `ATTACH` and their like are refused.
    """

    __slots__ = ("_batch", "_open")

    def __init__(self, batch: "Batch") -> None:
        self._batch: Batch | None = batch
        self._open: list[sqlite3.Cursor] = []

    def execute(self, sql: str, parameters: Parameters = (), /) -> Rows:
        """Runs one statement, as `sqlite3.Connection.execute`."""
        batch = self.usable()
        cursor = batch.file.connection.cursor()
        self._open.append(cursor)
        try:
            cursor.execute(sql, parameters)
        except Exception as error:
            batch.raise_for(error)
            raise
        if cursor.description is None:
            self._open.pop()
        return Rows(self, cursor)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Rows:
        """Runs one statement for each of many parameters, as `sqlite3.Connection.executemany`."""
        batch = self.usable()
        cursor = batch.file.connection.cursor()
        try:
            cursor.executemany(sql, batch.while_whole(parameters))
        except Exception as error:
            batch.raise_for(error)
            raise
        return Rows(self, cursor)

    def commit(self) -> None:
        """Refused: the engine commits."""
        raise ProjectionError("a handler must not commit: the engine does, together with the offset; just return")

    def rollback(self) -> None:
        """Refused: raise an exception instead."""
        raise ProjectionError("a handler must not roll back: raise an exception, and what it wrote is taken back")

    def usable(self) -> "Batch":
        """The batch it belongs to, as long as statements may run in it."""
        batch = self._batch
        if batch is None:
            raise ProjectionError("this transaction is over: use it only until the handler has returned")
        batch.check_whole()
        return batch

    def end(self) -> None:
        """Makes it and all its rows unusable."""
        self._batch = None
        for cursor in self._open:
            cursor.close()
        self._open.clear()


class Batch:
    """Some events and the offset behind them. For the runner; see `_read_model.py` for how it is used."""

    def __init__(self, file: "SQLiteFile") -> None:
        self.file = file
        self._event: ReadModelTransaction | None = None
        self._trouble: StorageError | None = None
        self._over = False

    @classmethod
    def begin(cls, file: "SQLiteFile") -> Self:
        """Begins a transaction; raises `StorageError` where it cannot."""
        try:
            file.tell("BEGIN IMMEDIATE")
        except Exception as error:
            raise file.as_error(error) from error
        return cls(file)

    def event(self) -> ReadModelTransaction:
        """Begins an event: a savepoint, and what its handler writes through."""
        self._check_open()
        if self._event is not None:
            raise AssertionError("one event at a time: keep or undo the last one")
        self._tell("SAVEPOINT _ego_event")
        self._event = ReadModelTransaction(self)
        return self._event

    def keep(self) -> None:
        """The handler returned. Raises `StorageError` or `TransactionLostError` where what it wrote is not there."""
        self._end_event()
        self._tell("RELEASE _ego_event")

    def undo(self) -> None:
        """The handler raised: takes back what it wrote, and nothing else. Raises as `keep`."""
        self._end_event()
        self._tell("ROLLBACK TO _ego_event")
        self._tell("RELEASE _ego_event")

    async def commit(self, position: int) -> None:
        """Commits what was kept, and the offset. On disk when done; where it raises, the batch is over as well.

        Who is cancelled while it waits does not stop it. After an error only `SQLiteReadModel.offset` knows.
        """
        self._check_open()
        self._over = True
        await self.file.run(self._commit, position)

    def abandon(self) -> None:
        """Takes everything back. May be called at any time, and more than once; nothing happens after a commit."""
        if self._over:
            return
        self._over = True
        if self._event is not None:
            self._event.end()
        self.file.roll_back()

    def raise_for(self, error: Exception) -> None:
        """Raises what a handler is to see in the place of an error: what was refused, or the store's trouble."""
        if (refused := self.file.refusal()) is not None:
            raise ProjectionError(refused) from error
        if (trouble := as_store_error(error, self.file.path)) is not None:
            self._trouble = self._trouble or trouble
            raise trouble from error

    def check_whole(self) -> None:
        """Raises where the transaction is not what it was when it began, whatever the handler made of the error."""
        if self._trouble is not None:
            raise self._trouble
        if not self.file.connection.in_transaction:
            raise TransactionLostError(
                "a statement of the handler rolled back the whole transaction, and with it what other events wrote;"
                " do not use OR ROLLBACK, ON CONFLICT ROLLBACK or RAISE(ROLLBACK): plain errors are taken back alone"
            )

    def while_whole(self, parameters: Iterable[Parameters]) -> Iterator[Parameters]:
        """Asks before each row: who makes the parameters may use the transaction too."""
        for each in parameters:
            self.check_whole()
            yield each

    def _commit(self, position: int) -> None:
        try:
            self.file.set_offset(position)
            self.file.commit()
        except Exception as error:
            self.file.roll_back()
            raise self.file.as_error(error) from error

    def _end_event(self) -> None:
        self._check_open()
        event, self._event = self._event, None
        if event is None:
            raise AssertionError("no event has begun")
        event.end()

    def _tell(self, statement: str) -> None:
        self.check_whole()
        try:
            self.file.tell(statement)
        except Exception as error:
            self.raise_for(error)
            raise

    def _check_open(self) -> None:
        if self._over:
            raise AssertionError("the batch is over")
