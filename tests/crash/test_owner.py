"""One process owns a store; a fork is not an owner."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import ego

HERE = Path(__file__).parent

SECOND_PROCESS = """
import asyncio, sys, ego

async def main():
    try:
        async with ego.Engine("second", ego.LogStore(sys.argv[1])):
            print("opened")
    except ego.StoreLockedError as error:
        print("locked by", error.pid)

asyncio.run(main())
"""

FORKING_PROCESS = """
import asyncio, os, signal, sys
import ego
from workload import Write, Writer

async def main():
    engine = ego.Engine("forking", ego.LogStore(sys.argv[1]), behaviors=[Writer])
    await engine.start()
    ref = engine.get(Writer, "e-0")
    await ref.send(Write(1, 1, 1))
    say = os.dup(1)
    if os.fork() == 0:
        try:
            await ref.send(Write(1, 1, 2))
            os.write(say, b"served a fork of %d\\n" % os.getppid())
        except ego.ForkedStoreError as error:
            os.write(say, b"refused %d\\n" % error.pid)
        except BaseException as error:
            os.write(say, repr(error).encode() + b"\\n")
        sys.stdin.read()
        os._exit(0)
    os.read(int(sys.argv[2]), 1)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def open_in_second_process(store: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS, str(store)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_a_second_process_is_told_the_owners_pid(tmp_path: Path) -> None:
    store = tmp_path / "store"

    async def own() -> str:
        async with ego.Engine("owner", ego.LogStore(store)):
            return await asyncio.to_thread(open_in_second_process, store)

    assert asyncio.run(own()) == f"locked by {os.getpid()}"
    assert open_in_second_process(store) == "opened"


def test_a_forked_child_is_refused_and_does_not_keep_the_lock_alive(tmp_path: Path) -> None:
    store = tmp_path / "store"
    until_told, tell = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING_PROCESS, str(store), str(until_told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE,
        pass_fds=[until_told],
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == f"refused {process.pid}\n"
        os.write(tell, b"!")
        assert process.wait(timeout=60) < 0
        assert open_in_second_process(store) == "opened", "the fork is alive and must not hold the lock"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()  # which ends the fork
        process.stdout.read()
        process.stdout.close()
        os.close(tell)
        os.close(until_told)


def test_a_stopped_store_is_free_while_a_child_still_holds_a_copy_of_the_descriptor(tmp_path: Path) -> None:
    """A child between fork and exec shares every descriptor of its parent; a duplicate stands for it here."""
    store = tmp_path / "store"

    async def stop_and_start() -> bool:
        engine = ego.Engine("owner", ego.LogStore(store))
        await engine.start()
        links = {int(name): Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")}
        lock = next(fd for fd, link in links.items() if link.exists() and link.resolve() == (store / "LOCK").resolve())
        copy = os.dup(lock)
        try:
            await engine.stop()
            await engine.start()
            return (await engine.stop()).finished
        finally:
            os.close(copy)

    assert asyncio.run(stop_and_start())
