"""The log beside the raw disk, the bare loop and SQLite: what a durable answer costs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from counter import PAYLOADS, SMALL, Added, add_with_payload, bare_loop, drive
from rounds import Better, Figures, Group, Measurement, Ratio, percentile

import ego

COMMANDS = {1: 2_000, 10: 20_000, 100: 100_000, 1_000: 400_000, 10_000: 600_000}
RAW_BYTES = 256
RAW_SYNCS = 2_000
RAW_FILE_BYTES = 64 << 20


def groups(folder: Path) -> Iterator[Group]:
    for payload in PAYLOADS:
        yield Group(f"log, {payload} B", list(measurements(folder, payload)), list(ratios(payload)))


def measurements(folder: Path, payload: int) -> Iterator[Measurement]:
    yield Measurement("raw pwrite and fdatasync", partial(raw, folder))
    yield Measurement("bare loop", partial(bare_loop, payload))
    for callers in COMMANDS:
        yield Measurement(f"{callers:,} callers", partial(log, folder, payload, callers))
    yield Measurement("SQLite, commit each", partial(sqlite, folder, payload, 1))
    for callers in (10, 100, 1_000):
        yield Measurement(f"SQLite, {callers:,} a commit", partial(sqlite, folder, payload, callers))


def ratios(payload: int) -> Iterator[Ratio]:
    small = payload == SMALL

    def ratio(
        name: str, subject: tuple[str, str], baseline: tuple[str, str], floor: float | None, aim: float | None
    ) -> Ratio:
        better: Better = "lower" if subject[1] in {"p50", "p99"} else "higher"
        bounded = small and floor is not None
        return Ratio(
            name, subject, baseline, better, floor if bounded else None, aim if bounded else None, payload=payload
        )

    disk, loop = "raw pwrite and fdatasync", "bare loop"
    yield ratio("durable, 1 caller, p50 by raw p50", ("1 callers", "p50"), (disk, "p50"), 1.4, 1.1)
    yield ratio("durable, 10 callers by raw loop", ("10 callers", "rate"), (disk, "rate"), 4.5, 9)
    yield ratio("durable, 100 callers by raw loop", ("100 callers", "rate"), (disk, "rate"), 22, 45)
    yield ratio("durable, 1,000 callers by bare loop", ("1,000 callers", "rate"), (loop, "rate"), 0.14, 0.25)
    yield ratio("durable, 10,000 callers by bare loop", ("10,000 callers", "rate"), (loop, "rate"), 0.10, 0.18)
    yield ratio("durable, 100 callers, p99 by p50", ("100 callers", "p99"), ("100 callers", "p50"), 3, 2)
    yield ratio("raw loop, p99 by p50", (disk, "p99"), (disk, "p50"), None, None)
    yield ratio("durable, 1 caller by SQLite FULL", ("1 callers", "rate"), ("SQLite, commit each", "rate"), None, None)
    for callers in (10, 100, 1_000):
        subject, baseline = f"{callers:,} callers", f"SQLite, {callers:,} a commit"
        name = f"durable, {callers:,} callers by SQLite batched"
        yield ratio(name, (subject, "rate"), (baseline, "rate"), None, None)


def log(folder: Path, payload: int, callers: int) -> Figures:
    store = folder / "log"
    each = COMMANDS[callers] // callers
    try:
        return asyncio.run(drive(ego.LogStore(store), payload, callers, each, timed=callers <= 100))
    finally:
        shutil.rmtree(store, ignore_errors=True)


def raw(folder: Path) -> Figures:
    """One thread that writes and syncs, into a file that was written before: no durable answer can be faster."""
    path = folder / "raw"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size < RAW_FILE_BYTES:
            os.pwrite(descriptor, bytes(RAW_FILE_BYTES), 0)
            os.fsync(descriptor)
        record = os.urandom(RAW_BYTES)
        seconds: list[float] = []
        begin = time.perf_counter()
        for number in range(RAW_SYNCS):
            start = time.perf_counter()
            os.pwrite(descriptor, record, number * RAW_BYTES)
            os.fdatasync(descriptor)
            seconds.append(time.perf_counter() - start)
        rate = RAW_SYNCS / (time.perf_counter() - begin)
    finally:
        os.close(descriptor)
    seconds.sort()
    return {"rate": rate, "p50": percentile(seconds, 50), "p99": percentile(seconds, 99)}


def sqlite(folder: Path, payload: int, batch: int) -> Figures:
    """The events of `batch` callers in one transaction of the standard library's sqlite3, WAL, synchronous FULL."""
    command = add_with_payload(payload)
    blob = msgspec.msgpack.encode(Added(command.by, command.note))
    commits = 1_000 if batch == 1 else max(20, 20_000 // batch)
    path = folder / "sqlite.db"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE events (entity TEXT, revision INTEGER, payload BLOB, PRIMARY KEY (entity, revision))"
        )
        start = time.perf_counter()
        for revision in range(commits):
            connection.execute("BEGIN")
            rows = [(f"e-{caller}", revision, blob) for caller in range(batch)]
            connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
        return {"rate": commits * batch / (time.perf_counter() - start)}
    finally:
        connection.close()
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
