"""Damage is refused with its place; a torn tail is dropped and told."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from storefiles import Place, contents, files, flip_byte, place_of
from workload import Write, Writer, encode, events_of

import ego

HERE = Path(__file__).parent
COMMANDS = 60

KILLED_PROCESS = """
import asyncio, os, signal, sys
import ego
from workload import Write, Writer

async def main():
    async with ego.Engine("killed", ego.LogStore(sys.argv[1]), behaviors=[Writer]) as engine:
        for number in range(1, int(sys.argv[2]) + 1):
            await engine.get(Writer, "e-0").send(Write(1, 1, number))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture
def killed_store(tmp_path: Path) -> Path:
    """A store with one batch per command, whose owner was killed after the last answer."""
    store = tmp_path / "store"
    subprocess.run([sys.executable, "-c", KILLED_PROCESS, str(store), str(COMMANDS)], cwd=HERE, check=False, timeout=60)
    return store


def payloads_up_to(number: int) -> list[bytes]:
    return [encode(event) for each in range(1, number + 1) for event in events_of(1, 1, "e-0", each)]


def place_of_command(store: Path, number: int) -> Place:
    return place_of(store, encode(max(events_of(1, 1, "e-0", number), key=lambda event: len(event.blob))))


async def send_once(store: Path, number: int) -> tuple[object, int]:
    async with ego.Engine("after", ego.LogStore(store), behaviors=[Writer]) as engine:
        return await engine.get(Writer, "e-0").send(Write(1, 1, number))


def test_damage_in_the_middle_is_refused_with_its_file_and_offset(killed_store: Path) -> None:
    damaged = place_of_command(killed_store, COMMANDS // 2)
    before = place_of_command(killed_store, COMMANDS // 2 - 1)
    flip_byte(damaged)
    as_damaged = files(killed_store)

    with pytest.raises(ego.CorruptLogError) as refusal:
        asyncio.run(send_once(killed_store, COMMANDS + 1))

    assert refusal.value.path == str(damaged.file)
    assert before.offset < refusal.value.offset <= damaged.offset
    assert f"{damaged.file}: damaged at offset {refusal.value.offset}" in str(refusal.value)
    assert files(killed_store) == as_damaged, "a refusal changes nothing"

    flip_byte(damaged)
    assert contents(killed_store).payloads == {"e-0": payloads_up_to(COMMANDS)}


def test_a_torn_tail_is_dropped_and_told_and_work_goes_on(killed_store: Path) -> None:
    last = place_of_command(killed_store, COMMANDS)
    with open(last.file, "r+b") as file:
        file.truncate(last.offset + 1)

    found = contents(killed_store)
    assert found.opened["torn"] is not None
    assert found.payloads == {"e-0": payloads_up_to(COMMANDS - 1)}

    asyncio.run(send_once(killed_store, COMMANDS))
    again = contents(killed_store)
    assert again.opened["torn"] is None
    assert again.payloads == {"e-0": payloads_up_to(COMMANDS)}
