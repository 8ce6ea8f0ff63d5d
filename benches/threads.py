"""Threads that block for each answer, beside threads that sync each command themselves."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from counter import SMALL, Added, Counter, add_with_payload
from rounds import Figures, Group, Measurement, Ratio

import ego
import ego.sync

THREADS = 64
EACH = 500
RAW_FILE_BYTES = 64 << 20


def groups(folder: Path) -> Iterator[Group]:
    ours, theirs = "ego.sync", "pwrite and fdatasync each"
    measurements = [Measurement(theirs, partial(raw, folder)), Measurement(ours, partial(blocking, folder))]
    name = f"{THREADS} blocking callers through ego.sync"
    yield Group("threads", measurements, [Ratio(name, (ours, "rate"), (theirs, "rate"), floor=3, aim=3, payload=SMALL)])


def blocking(folder: Path) -> Figures:
    store = folder / "log"
    command = add_with_payload(SMALL)
    try:
        with ego.sync.Engine("bench", ego.LogStore(store), behaviors=[Counter]) as engine:
            refs = [engine.get(Counter, f"e-{number}") for number in range(THREADS)]
            for ref in refs:
                ref.state()

            def caller(number: int) -> None:
                send = refs[number].send
                for _ in range(EACH):
                    send(command)

            return {"rate": rate(caller)}
    finally:
        shutil.rmtree(store, ignore_errors=True)


def raw(folder: Path) -> Figures:
    """Each thread writes and syncs what one command stores, into its own region of a file that was written before."""
    path = folder / "raw"
    command = add_with_payload(SMALL)
    record = msgspec.msgpack.encode(Added(command.by, command.note))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(RAW_FILE_BYTES), 0)
        os.fsync(descriptor)

        def caller(number: int) -> None:
            at = number * (RAW_FILE_BYTES // THREADS)
            for index in range(EACH):
                os.pwrite(descriptor, record, at + index * len(record))
                os.fdatasync(descriptor)

        return {"rate": rate(caller)}
    finally:
        os.close(descriptor)
        path.unlink()


def rate(caller: Callable[[int], None]) -> float:
    """Commands per second of all threads together."""
    threads = [threading.Thread(target=caller, args=(number,)) for number in range(THREADS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return THREADS * EACH / (time.perf_counter() - start)
