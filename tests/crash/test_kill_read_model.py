"""kill -9 in the middle of batches of a read model: rows and offset agree, each event once.

`EGO_SEED=n` picks when.
"""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import ego

ROUNDS = 12
SEED = int(os.environ.get("EGO_SEED", "1"))


def tables(tx: ego.ReadModelTransaction) -> None:
    tx.execute("CREATE TABLE seen (position INTEGER NOT NULL)")


async def project(path: str, seed: int) -> None:
    dice = random.Random(seed)
    model = ego.SQLiteReadModel(path, create=tables)
    await model.open("seen", b"s" * 16)
    position = await model.offset() or 0
    while True:
        batch = model.begin()
        for _ in range(dice.randrange(1, 40)):
            position += 1
            batch.event().execute("INSERT INTO seen VALUES (?)", (position,))
            batch.keep()
            print("event", flush=True)
        await batch.commit(position)


def test_a_kill_leaves_rows_and_offset_of_the_same_commit(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    path = tmp_path / "seen.db"
    last = 0
    for number in range(ROUNDS):
        command = [sys.executable, __file__, str(path), str(SEED * 1_000 + number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 300)):
                assert child.stdout.readline() == b"event\n"
            child.send_signal(signal.SIGKILL)
        with closing(sqlite3.connect(path)) as reader:
            seen = [row[0] for row in reader.execute("SELECT position FROM seen ORDER BY rowid")]
            (offset,) = reader.execute("SELECT position FROM _ego_offset").fetchone()
        assert seen == list(range(1, (offset or 0) + 1)), f"seed {SEED}, round {number}"
        assert len(seen) >= last
        last = len(seen)
    assert last > 0, f"seed {SEED}: no batch was ever committed"


if __name__ == "__main__":
    asyncio.run(project(sys.argv[1], int(sys.argv[2])))
