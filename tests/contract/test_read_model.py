"""A read model in SQLite: rows and offset in one commit, whatever a handler, a crash or a disk does."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from egotest.running import Run

import ego
from ego._projections._transaction import TransactionLostError

STORE = b"s" * 16
ADD = "INSERT INTO sums VALUES (?, ?)"


def tables(tx: ego.ReadModelTransaction) -> None:
    tx.execute("CREATE TABLE sums (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)")


def model_at(folder: Path, **options: Any) -> ego.SQLiteReadModel:
    return ego.SQLiteReadModel(folder / "sums.db", create=tables, **options)


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncGenerator[ego.SQLiteReadModel, None]:
    model = model_at(folder, **options)
    await model.open("sums", STORE)
    try:
        yield model
    finally:
        await model.close()


async def write(model: ego.SQLiteReadModel, *numbers: int) -> None:
    batch = model.begin()
    for number in numbers:
        batch.event().execute(ADD, (number, number))
        batch.keep()
    await batch.commit(max(numbers))


def rows(path: str | Path, query: str = "SELECT id FROM sums ORDER BY id") -> list[Any]:
    with closing(sqlite3.connect(path)) as reader:
        return [row[0] for row in reader.execute(query)]


def test_rows_and_offset_are_committed_together_and_found_again(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            assert await model.offset() is None
            batch = model.begin()
            batch.event().execute(ADD, (1, 10))
            batch.keep()
            assert rows(model.path) == [], "a reader sees nothing before the commit, and does not wait"
            await batch.commit(7)
            assert rows(model.path) == [1]
        async with opened(tmp_path) as model:
            assert await model.offset() == 7
            batch = model.begin()
            batch.event().execute(ADD, (2, 20))
            batch.abandon()
            batch.abandon()
            assert (await model.offset(), rows(model.path)) == (7, [1])

    run(main())


def test_an_event_that_failed_is_taken_back_alone(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            batch = model.begin()
            for number, good in ((1, True), (2, False), (3, True)):
                batch.event().execute(ADD, (number, number))
                batch.keep() if good else batch.undo()
            await batch.commit(3)
            assert (await model.offset(), rows(model.path)) == (3, [1, 3])

    run(main())


def test_a_transaction_reads_what_it_wrote(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            batch = model.begin()
            tx = batch.event()
            done = tx.executemany(ADD, [(1, 10), (2, 20)])
            assert done.rowcount == 2
            assert tx.execute(ADD, (3, 30)).lastrowid == 3
            assert [amount for (amount,) in tx.execute("SELECT amount FROM sums ORDER BY id")] == [10, 20, 30]
            found = tx.execute("SELECT id FROM sums WHERE id > :id", {"id": 1})
            assert (found.fetchone(), found.fetchall(), found.fetchone()) == ((2,), [(3,)], None)
            unread = tx.execute("INSERT INTO sums VALUES (4, 40) RETURNING id")
            batch.keep()
            with pytest.raises(ego.ProjectionError, match="this transaction is over"):
                unread.fetchone()
            with pytest.raises(ego.ProjectionError, match="this transaction is over"):
                tx.execute("SELECT 1")
            await batch.commit(4)
            assert rows(model.path) == [1, 2, 3, 4]

    run(main())


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT", "  end transaction", "ROLLBACK", "BEGIN", "RELEASE _ego_event", "ROLLBACK TO _EGO_EVENT",
        "SAVEPOINT _ego_event", "ATTACH ':memory:' AS other", "DETACH main", "PRAGMA synchronous = OFF",
        "PRAGMA journal_mode = DELETE", "UPDATE _ego_offset SET position = 99", "DROP TABLE _EGO_OFFSET",
        "DELETE FROM _ego_offset", "ALTER TABLE _ego_offset RENAME TO mine", "COMMIT -- again",
    ],
)  # fmt: skip
def test_a_handler_cannot_end_its_transaction_or_move_the_offset(run: Run, tmp_path: Path, sql: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            await write(model, 1)
            batch = model.begin()
            tx = batch.event()
            tx.execute(ADD, (2, 2))
            with pytest.raises(ego.ProjectionError, match=r"must not|give yours another name"):
                tx.execute(sql)
            with pytest.raises(ego.ProjectionError, match="must not commit"):
                tx.commit()
            with pytest.raises(ego.ProjectionError, match="must not roll back"):
                tx.rollback()
            batch.undo()
            await batch.commit(5)
            assert (await model.offset(), rows(model.path)) == (5, [1])

    run(main())


def test_a_savepoint_of_the_handler_is_its_own(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            batch = model.begin()
            tx = batch.event()
            tx.execute("SAVEPOINT mine")
            tx.execute(ADD, (1, 1))
            tx.execute("ROLLBACK TO mine")
            tx.execute(ADD, (2, 2))
            batch.keep()
            await batch.commit(1)
            assert rows(model.path) == [2]

    run(main())


def test_a_rollback_by_sqlite_is_noticed_before_anything_is_written_outside(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            await write(model, 1)
            batch = model.begin()
            batch.event().execute(ADD, (2, 2))
            batch.keep()
            tx = batch.event()
            with pytest.raises(sqlite3.IntegrityError):
                tx.execute("INSERT OR ROLLBACK INTO sums VALUES (1, 1)")
            with pytest.raises(TransactionLostError, match="rolled back the whole transaction"):
                tx.execute(ADD, (3, 3))
            with pytest.raises(TransactionLostError):
                batch.keep()
            batch.abandon()
            assert (await model.offset(), rows(model.path)) == (1, [1])
            await write(model, 2)

    run(main())


def test_an_error_of_the_handler_is_its_own_and_goes_back_as_it_is(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            batch = model.begin()
            tx = batch.event()
            with pytest.raises(sqlite3.OperationalError, match="no such table"):
                tx.execute("SELECT * FROM nowhere")
            batch.undo()
            await batch.commit(1)

    run(main())


def test_a_full_file_is_the_stores_trouble_even_if_the_handler_swallows_it(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            await write(model, 1)
            file: Any = model.begin()
            file.abandon()
            pages = file.file.tell("PRAGMA page_count")[0]
            file.file.tell(f"PRAGMA max_page_count = {pages}")
            batch = model.begin()
            tx = batch.event()
            with pytest.raises(ego.StoreFullError, match="the disk is full"):
                tx.executemany(ADD, [(number, number) for number in range(2, 5_000)])
            with pytest.raises(ego.StoreFullError):
                batch.undo()
            batch.abandon()
            assert (await model.offset(), rows(model.path)) == (1, [1])
            file.file.tell("PRAGMA max_page_count = 1000000")
            await write(model, 2)
            assert (await model.offset(), rows(model.path)) == (2, [1, 2])

    run(main())


def test_somebody_else_who_writes_is_the_stores_trouble(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            with closing(sqlite3.connect(model.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(ego.StorageError, match="another connection holds its write lock"):
                    model.begin()
                other.execute("ROLLBACK")
            await write(model, 1)

    run(main())


def test_who_is_cancelled_while_it_commits_does_not_stop_the_commit(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            committing = asyncio.ensure_future(write(model, 1))
            await asyncio.sleep(0)
            committing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert (await model.offset(), rows(model.path)) == (1, [1])

    run(main())


def test_a_child_of_a_fork_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            with monkeypatch.context() as patch:
                patch.setattr("os.getpid", lambda: 1)
                with pytest.raises(ego.ForkedStoreError, match="open it in the child instead"):
                    model.begin()

    run(main())


def test_one_projection_owns_a_file(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            with pytest.raises(ego.StoreLockedError, match="open for writing in process") as caught:
                await model_at(tmp_path).open("sums", STORE)
            assert caught.value.pid == os.getpid()
            with pytest.raises(ego.ConfigError, match="is in use by a projection"):
                await model.open("sums", STORE)
            await write(model, 1)
        async with opened(tmp_path) as model:
            assert await model.offset() == 1

    run(main())


def test_a_file_of_another_store_projection_or_format_is_refused(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            file = model.file
        with pytest.raises(ego.ProjectionError, match="was built from store 7373"):
            await model_at(tmp_path).open("sums", b"t" * 16)
        with pytest.raises(ego.ProjectionError, match="is that of projection 'sums', version 1, not of 'other'"):
            await model_at(tmp_path).open("other", STORE)
        with closing(sqlite3.connect(file)) as other:
            other.execute("UPDATE _ego_offset SET format = 2")
            other.commit()
        with pytest.raises(ego.StoreFormatError, match="has format 2, and this version of ego reads 1"):
            await model_at(tmp_path).open("sums", STORE)

    run(main())


def test_a_database_that_is_no_read_model_is_left_alone(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with closing(sqlite3.connect(tmp_path / "sums.v1.db")) as other:
            other.execute("CREATE TABLE mine (id)")
        with pytest.raises(ego.StoreFormatError, match="no read model"):
            await model_at(tmp_path).open("sums", STORE)
        (tmp_path / "sums.v2.db").write_text("not a database, but long enough to be read as one" * 100)
        with pytest.raises(ego.StorageError, match="it is no SQLite database"):
            await model_at(tmp_path, version=2).open("sums", STORE)
        (tmp_path / "plain.db").write_text("")
        with pytest.raises(ego.StoreFormatError, match="give the read model a path that is free"):
            await ego.SQLiteReadModel(tmp_path / "plain.db").open("sums", STORE)
        with pytest.raises(ego.StorageError, match="cannot be opened"):
            await ego.SQLiteReadModel(tmp_path / "nowhere" / "sums.db").open("sums", STORE)

    run(main())


def test_a_rebuild_empties_the_file_and_moves_the_offset_at_once(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as model:
            batch = model.begin()
            tx = batch.event()
            tx.execute("CREATE VIEW big AS SELECT * FROM sums WHERE amount > 1")
            tx.execute("CREATE INDEX by_amount ON sums (amount)")
            tx.execute(ADD, (1, 1))
            batch.keep()
            await batch.commit(9)
            await model.rebuild(4)
            assert (await model.offset(), rows(model.path)) == (4, [])
            assert rows(model.path, "SELECT name FROM sqlite_master WHERE type <> 'table'") == []

        def fail(tx: ego.ReadModelTransaction) -> None:
            tx.execute("DELETE FROM sums")
            raise LookupError("no")

        async with opened(tmp_path, reset=fail) as model:
            await write(model, 5)
            with pytest.raises(LookupError):
                await model.rebuild(None)
            assert (await model.offset(), rows(model.path)) == (5, [5])

    run(main())


def test_readers_get_the_new_version_after_a_switch_and_keep_what_they_have_open(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as blue, opened(tmp_path, version=2) as green:
            await write(blue, 1)
            await write(green, 1, 2)
            assert (blue.is_served, green.is_served, rows(blue.path)) == (True, False, [1])
            with closing(sqlite3.connect(blue.path)) as reader:
                assert reader.execute("SELECT count(*) FROM sums").fetchone() == (1,)
                # What a crash between the two steps of an earlier switch left behind.
                (tmp_path / "sums.db.switch").symlink_to("nowhere")
                await green.switch()
                assert (blue.is_served, green.is_served, rows(blue.path)) == (False, True, [1, 2])
                assert reader.execute("SELECT count(*) FROM sums").fetchone() == (1,)
            await blue.switch()
            assert rows(blue.path) == [1]

    run(main())


def test_a_switch_is_refused_while_a_reader_holds_the_log(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as blue, opened(tmp_path, version=2) as green:
            await write(green, 1)
            with closing(sqlite3.connect(green.file, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT * FROM sums").fetchall()
                await write(green, 2)
                with pytest.raises(ego.StorageError, match="a reader holds on to its write-ahead log"):
                    await green.switch()
            assert blue.is_served
            await green.switch()
            assert (tmp_path / "sums.v2.db-wal").stat().st_size == 0

    run(main())


def test_versions_are_compared_before_the_switch(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as blue, opened(tmp_path, version=2) as green:
            await write(blue, 1, 2)
            await write(green, 1, 3)
            found = await green.difference_from(1)
            assert (found.old_position, found.new_position, found.is_empty) == (2, 3, False)
            assert "1 rows the same, 1 only in the old one, 1 only in the new one, 0 different" in str(found)

    run(main())


@pytest.mark.parametrize("path", ["", "nul\0", "folder/", b"bytes.db", None, 5])
def test_the_path_of_a_read_model(path: Any) -> None:
    with pytest.raises(ego.ConfigError, match="path must be"):
        ego.SQLiteReadModel(path)
