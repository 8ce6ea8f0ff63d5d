"""Where two read models differ, row by row.

Rows of tables with a primary key are matched by it; those of other tables as wholes, each as often as it is there.
Both files are read in key order and merged, so memory does not grow with them; SQLite sorts on disk what no index
sorts. A value is the same only with the same type: 1 is not 1.0, and text is not a blob. Both files may be in use
meanwhile: each is read as it was at one moment, whose offset is told.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ego._errors import StorageError
from ego._projections._sqlite_file import OFFSET_TABLE

EXAMPLES: Final = 5
OURS: Final = "name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name NOT LIKE '!_ego!_%' ESCAPE '!'"

Row = tuple[Any, ...]


class RowDifference(msgspec.Struct, frozen=True):
    """One row that differs: `old` or `new` is `None` where there is none."""

    old: Row | None
    new: Row | None

    def __str__(self) -> str:
        if self.new is None:
            return f"- {self.old}"
        if self.old is None:
            return f"+ {self.new}"
        return f"- {self.old}  + {self.new}"


class TableDifference(msgspec.Struct, frozen=True):
    """How the rows of a table differ that is in both files, in the columns that both have."""

    table: str
    columns: tuple[str, ...]
    same: int
    only_old: int
    only_new: int
    different: int
    """Rows with the same primary key and other values; 0 for a table without one."""
    examples: tuple[RowDifference, ...]
    """The first few."""

    @property
    def is_empty(self) -> bool:
        """Every row is the same."""
        return not (self.only_old or self.only_new or self.different)

    def __str__(self) -> str:
        head = (
            f"{self.table} {self.columns}: {self.same} rows the same, {self.only_old} only in the old one,"
            f" {self.only_new} only in the new one, {self.different} different"
        )
        return "\n".join([head, *(f"  {each}" for each in self.examples)])


class ReadModelDifference(msgspec.Struct, frozen=True):
    """What `diff` found. `print` it."""

    old_position: int | None
    new_position: int | None
    schema: tuple[str, ...]
    """What is not in both files or not defined alike, a line each."""
    tables: tuple[TableDifference, ...]
    """Every table that is in both files."""

    @property
    def is_empty(self) -> bool:
        """The same tables with the same rows. The offsets may differ."""
        return not self.schema and all(table.is_empty for table in self.tables)

    def __str__(self) -> str:
        head = f"old at position {self.old_position}, new at position {self.new_position}"
        return "\n".join([head, *self.schema, *map(str, self.tables)])


def diff(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> ReadModelDifference:
    """Compares two read models. Reads both files whole; call it in a thread."""
    import sqlite3

    with contextlib.ExitStack() as stack:
        try:
            one, other = _Snapshot(stack, old), _Snapshot(stack, new)
            schema = [*_schema(one, other)]
            tables = [_table(one, other, name) for name in sorted(one.tables.keys() & other.tables.keys())]
            return ReadModelDifference(one.position, other.position, tuple(schema), tuple(tables))
        except sqlite3.Error as error:
            raise StorageError(f"{os.fspath(old)} and {os.fspath(new)} cannot be compared: {error}") from error


class _Snapshot:
    """One file as it is at this moment, for reading only."""

    def __init__(self, stack: contextlib.ExitStack, path: str | os.PathLike[str]) -> None:
        import sqlite3

        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        connection = stack.enter_context(contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)))
        # Text as bytearray, blobs as bytes: both have the order that SQLite gives them, and no text is undecodable.
        connection.text_factory = bytearray
        connection.execute("BEGIN")
        self._connection = connection
        self.sql = {(text(kind), text(name)): text(sql) for kind, name, sql in self._made()}
        self.tables = {name: self._columns(name) for kind, name in self.sql if kind == "table"}
        self.position = self._position()

    def rows(self, table: str, columns: list[str], order: list[str]) -> Iterator[Row]:
        names = ", ".join(map(quoted, columns))
        return self._connection.execute(f"SELECT {names} FROM {quoted(table)} ORDER BY {', '.join(order)}")

    def _made(self) -> list[Row]:
        return self._connection.execute(
            f"SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND {OURS} ORDER BY type, name"
        ).fetchall()

    def _columns(self, table: str) -> "dict[str, tuple[str, int]]":
        rows = self._connection.execute(f"PRAGMA table_info({quoted(table)})")
        return {text(name): (text(kind), key) for _, name, kind, _, _, key in rows}

    def _position(self) -> int | None:
        known = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (OFFSET_TABLE,)).fetchone()
        row: tuple[int | None] | None = None
        if known is not None:
            row = self._connection.execute(f"SELECT position FROM {OFFSET_TABLE}").fetchone()
        return None if row is None else row[0]


def _schema(old: _Snapshot, new: _Snapshot) -> Iterator[str]:
    for kind, name in sorted(old.sql.keys() | new.sql.keys()):
        here, there = old.sql.get((kind, name)), new.sql.get((kind, name))
        if there is None:
            yield f"{kind} {name} is only in the old one"
        elif here is None:
            yield f"{kind} {name} is only in the new one"
        elif here != there:
            yield f"{kind} {name} is defined as {there} in the new one, and was {here}"


def _table(old: _Snapshot, new: _Snapshot, table: str) -> TableDifference:
    columns = [name for name in old.tables[table] if name in new.tables[table]]
    keys = _key(old.tables[table])
    whole = not keys or keys != _key(new.tables[table])
    if whole:
        order = [part for name in columns for part in (f"{quoted(name)} COLLATE BINARY", f"typeof({quoted(name)})")]
        places = list(range(len(columns)))
    else:
        order = [f"{quoted(name)} COLLATE BINARY" for name in keys]
        places = [columns.index(name) for name in keys]
    if not columns:
        return TableDifference(table, (), 0, 0, 0, 0, ())
    merged = _merge(old.rows(table, columns, order), new.rows(table, columns, order), places, whole)
    return _counted(table, columns, merged)


def _key(columns: dict[str, tuple[str, int]]) -> list[str]:
    return [name for name, (_, place) in sorted(columns.items(), key=lambda item: item[1][1]) if place > 0]


def _merge(
    old: Iterator[Row], new: Iterator[Row], places: list[int], whole: bool
) -> Iterator[tuple[Row | None, Row | None]]:
    """Pairs of rows with the same key, and rows that have no partner."""
    one, other = next(old, None), next(new, None)
    while one is not None or other is not None:
        here = None if one is None else [_rank(one[place], whole) for place in places]
        there = None if other is None else [_rank(other[place], whole) for place in places]
        if there is None or (here is not None and here < there):
            yield one, None
            one = next(old, None)
        elif here is None or there < here:
            yield None, other
            other = next(new, None)
        else:
            yield one, other
            one, other = next(old, None), next(new, None)


def _rank(value: Any, with_type: bool) -> tuple[Any, ...]:
    """What Python has to compare to get the order of SQLite: NULL, numbers, text, blobs."""
    if value is None:
        return (0,)
    if isinstance(value, int | float):
        return (1, value, with_type and isinstance(value, float))
    return (2 if isinstance(value, bytearray) else 3, value)


def _counted(table: str, columns: list[str], pairs: Iterator[tuple[Row | None, Row | None]]) -> TableDifference:
    same = only_old = only_new = different = 0
    examples: list[RowDifference] = []
    for old, new in pairs:
        if new is None:
            only_old += 1
        elif old is None:
            only_new += 1
        elif old == new and all(type(one) is type(other) for one, other in zip(old, new, strict=True)):
            same += 1
            continue
        else:
            different += 1
        if len(examples) < EXAMPLES:
            examples.append(RowDifference(_shown(old), _shown(new)))
    return TableDifference(table, tuple(columns), same, only_old, only_new, different, tuple(examples))


def _shown(row: Row | None) -> Row | None:
    return row and tuple(text(value) if isinstance(value, bytearray) else value for value in row)


def text(value: bytearray) -> str:
    """Text of SQLite, which need not be UTF-8."""
    return value.decode(errors="backslashreplace")


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
