"""Where benchmarks may run, and a description of where they did."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from ego import _native

FASTEST_HONEST_SYNC = 20e-6
COMPARED = ("eventsourcing", "eventsource-py", "salamander-db")


class RefusalError(Exception):
    """Figures taken here would not mean anything."""


def check(folder: Path) -> None:
    if _native.__profile__ != "release":
        raise RefusalError(f"ego is a {_native.__profile__} build; install the release wheel (`make wheel`)")
    kind = file_system(folder)
    if kind in {"tmpfs", "ramfs"}:
        raise RefusalError(f"{folder} is on {kind}, where a sync does nothing; choose a disk with --folder")
    seconds = sync_seconds(folder)
    if seconds < FASTEST_HONEST_SYNC:
        raise RefusalError(f"a sync in {folder} takes {seconds * 1e6:.1f} us: nothing reaches a disk there")


def file_system(folder: Path) -> str:
    """The type of the mounted file system that holds `folder`."""
    best, kind = "", "unknown"
    place = str(folder.resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, mounted_kind, *_ = line.split()
        inside = place == mounted or place.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= len(best):
            best, kind = mounted, mounted_kind
    return kind


def sync_seconds(folder: Path, rounds: int = 50) -> float:
    path = folder / "sync-probe"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(rounds * 4096), 0)
        os.fsync(descriptor)
        times: list[float] = []
        for number in range(rounds):
            start = time.perf_counter()
            os.pwrite(descriptor, b"x" * 256, number * 4096)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(times)


def describe(folder: Path) -> dict[str, str]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
        "sync of 256 bytes": f"{sync_seconds(folder) * 1e6:.0f} us",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "ego": importlib.metadata.version("ego-engine"),
        "msgspec": importlib.metadata.version("msgspec"),
        "sqlite": sqlite3.sqlite_version,
        **{name: importlib.metadata.version(name) for name in COMPARED},
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
