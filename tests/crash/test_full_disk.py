"""A disk that is really full: a small ext4 file system in a file, mounted for the test."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from storefiles import contents

import ego

DISK_BYTES = 24 << 20
CHUNK = 48 << 10


class Put(ego.Command):
    number: int


class Stored(ego.Event):
    number: int
    blob: bytes


class Count(ego.State):
    stored: int = 0


class Filler(ego.EventSourcedBehavior[Put, Stored, Count]):
    def initial_state(self) -> Count:
        return Count()

    def handle_command(self, command: Put, state: Count, /) -> Stored:
        return Stored(command.number, blob_of(command.number))

    def handle_event(self, event: Stored, state: Count, /) -> Count:
        return Count(state.stored + 1)


def blob_of(number: int) -> bytes:
    return number.to_bytes(4, "big") * (CHUNK // 4)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4: a full disk is made by mounting a small file system")
    image, mounted = tmp_path / "disk.img", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(DISK_BYTES)
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)], check=True)
    mount = subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"a loop device cannot be mounted here: {mount.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


async def fill(ref: ego.EntityRef[Put, Count], acknowledged: list[int]) -> int:
    """Sends until the disk is full; returns the number of the command that was refused."""
    for number in range(len(acknowledged), DISK_BYTES // CHUNK):
        try:
            await ref.send(Put(number), timeout=60)
        except ego.StoreFullError:
            return number
        acknowledged.append(number)
    raise AssertionError("the disk was never full")


async def fill_free_and_go_on(store: Path, make_room: Callable[[], None]) -> list[int]:
    """Returns the numbers that were acknowledged."""
    acknowledged: list[int] = []
    async with ego.Engine("filler", ego.LogStore(store), behaviors=[Filler]) as engine:
        ref = engine.get(Filler, "f")
        await ref.send(Put(0))
        acknowledged.append(0)

        full_at = await fill(ref, acknowledged)
        assert full_at * CHUNK > DISK_BYTES // 4
        assert await ref.state() == (Count(full_at), full_at), "a refused command leaves state and revision alone"
        with pytest.raises(ego.StoreFullError):
            await ref.send(Put(full_at))

        make_room()
        for number in range(1_000, 1_020):
            await ref.send(Put(number), timeout=60)
            acknowledged.append(number)

        await engine.stop()
        await engine.start()
        assert await ref.state() == (Count(len(acknowledged)), len(acknowledged))
    return acknowledged


def test_a_full_disk_refuses_whole_commands_and_work_goes_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)

    acknowledged = asyncio.run(fill_free_and_go_on(small_disk / "store", ballast.unlink))

    decode = msgspec.msgpack.Decoder(Stored).decode
    stored = [decode(payload) for payload in contents(small_disk / "store").payloads["f"]]
    assert stored == [Stored(number, blob_of(number)) for number in acknowledged]
