"""kill -9 at random moments, again and again, and a comparison of every byte after it.

A *life* is one store that goes on over many kills, with or without a look at it in between. After a kill every
acknowledged command must be there once, byte for byte; one that was not acknowledged is wholly there or wholly absent;
revisions and positions have no gap; the id of every command that is there is remembered. A kill counts as a cycle only
if a unit was in flight: accepted by the store, and its caller not answered.

    python tests/crash/harness.py CYCLES SEED FOLDER      prints the counts as JSON
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

import msgspec
from child import MAX_UNIT_BYTES, Plan
from ledger import read_ledger
from workload import EVENT_NAME, KIND, Written, Wrote, encode, entity_name, events_of, fold

from ego import _native

HERE = Path(__file__).parent
SHARDS = 128
PAGE = 10_000


class ViolationError(AssertionError):
    """The store broke its word."""


@dataclass
class Counts:
    """What happened, over all cycles."""

    cycles: int = 0
    kills: int = 0
    acknowledged: int = 0
    unacknowledged_stored: int = 0
    unacknowledged_absent: int = 0
    before_the_first_answer: int = 0
    crashed_stores_reopened_by_the_next_writer: int = 0
    torn_tails: int = 0
    undecided_batches_copied: int = 0
    lives: int = 0
    events_compared: int = 0

    def __str__(self) -> str:
        return " ".join(f"{item.name}={getattr(self, item.name)}" for item in fields(self))


@dataclass
class Entity:
    """What the store must hold of one entity, as far as that is decided."""

    state: Written = field(default_factory=Written)
    payloads: list[bytes] = field(default_factory=list[bytes])


@dataclass
class Incarnation:
    """What one killed child had sent and been told, while nobody has looked at the outcome."""

    cycle: int
    sent: dict[int, int] = field(default_factory=dict[int, int])
    acknowledged: dict[int, int] = field(default_factory=dict[int, int])


class Nursery:
    """The process that forks the children, and what it says."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "child.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def kill_one(self, plan: Plan, spin: float) -> None:
        """Starts a child and kills it `spin` seconds after the moment that the plan waits for."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
        self._process.stdin.flush()
        pid = int(self._hear(b"pid", plan))
        if plan.acks:
            self._hear(b"ack", plan)
        end = time.perf_counter() + spin
        while time.perf_counter() < end:
            pass
        os.kill(pid, signal.SIGKILL)
        status = int(self._hear(b"gone", plan))
        if status != -signal.SIGKILL:
            raise ViolationError(f"{plan}: the child ended by itself with status {status}")

    def _hear(self, word: bytes, plan: Plan) -> bytes:
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            said, _, rest = line.strip().partition(b" ")
            if said == word:
                return rest
            if said != b"ack":
                raise ViolationError(f"{plan}: waiting for {word!r}, the child said {line!r}")


class Life:
    """One store, killed again and again."""

    def __init__(self, folder: Path, seed: int, rng: random.Random, counts: Counts) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.seed = seed
        self.rng = rng
        self.counts = counts
        self.entities = [Entity() for _ in range(rng.choice((1, 3, 20, 200)))]
        self.segment_bytes = rng.choice((1 << 20, 1 << 22, 64 << 20))
        self.open_end: Incarnation | None = None
        self.kills = 0

    def kill(self, nursery: Nursery) -> None:
        writers = self.rng.choice((1, 2, 4, 8, 16, 32, 64))
        early = self.rng.random() < 0.15
        acks = 0 if early else int(self.rng.uniform(1, 12) ** 2 * max(1, writers**0.5))
        spin = self.rng.uniform(0.0, 0.03 if early else 0.002)
        self.kills += 1
        ledger = self.folder / f"ledger-{self.kills}"
        plan = Plan(
            store=str(self.store),
            ledger=str(ledger),
            seed=self.seed,
            cycle=self.kills,
            writers=writers,
            entities=len(self.entities),
            acks=acks,
            segment_bytes=self.segment_bytes,
        )
        nursery.kill_one(plan, spin)
        self._read_ledger(ledger)
        ledger.unlink(missing_ok=True)

    def _read_ledger(self, ledger: Path) -> None:
        lines = read_ledger(ledger) if ledger.exists() else []
        self.counts.kills += 1
        now = Incarnation(self.kills)
        if any(line.word == "Z" for line in lines):
            self._read_back_by_child([line.numbers for line in lines if line.word == "R"])
            self.open_end = now
        for word, numbers in lines:
            if word == "S":
                now.sent[numbers[0]] = numbers[1]
            elif word == "A":
                now.acknowledged[numbers[0]] = numbers[1]
        acknowledged = sum(line.word == "A" for line in lines)
        in_flight = sum(line.word == "S" for line in lines) - acknowledged
        self.counts.acknowledged += acknowledged
        self.counts.before_the_first_answer += acknowledged == 0
        self.counts.cycles += in_flight > 0

    def _read_back_by_child(self, reports: list[tuple[int, ...]]) -> None:
        """The next writer replayed every entity of a store that nobody else had opened since the kill."""
        if self.open_end is not None and self.open_end.sent:
            self.counts.crashed_stores_reopened_by_the_next_writer += 1
        self._decide({index: commands for index, commands, _, _ in reports})
        for index, commands, revision, crc in reports:
            found = Written(commands, revision, crc)
            if found != self.entities[index].state:
                self._fail(f"{entity_name(index)} was replayed as {found}, not {self.entities[index].state}")

    def _decide(self, stored: dict[int, int]) -> None:
        """Settles what became of the last child's commands, given how many commands each entity holds."""
        last, self.open_end = self.open_end, None
        unlisted = 1  # the kill may come between the store's taking a command and its line in the ledger
        for index, entity in enumerate(self.entities):
            held = stored.get(index, 0)
            known = entity.state.commands
            acknowledged = max(known, last.acknowledged.get(index, 0)) if last else known
            sent = max(known, last.sent.get(index, 0)) if last else known
            if held < acknowledged:
                self._fail(f"{entity_name(index)} holds {held} commands, but {acknowledged} were acknowledged")
            if last and held == sent + 1:
                unlisted -= 1
                sent = held
            if held > sent or unlisted < 0:
                self._fail(f"{entity_name(index)} holds {held} commands, but only {sent} were ever sent")
            self.counts.unacknowledged_stored += held - acknowledged
            self.counts.unacknowledged_absent += sent - held
            for number in range(known + 1, held + 1):
                assert last is not None
                for event in events_of(self.seed, last.cycle, entity_name(index), number):
                    entity.state = fold(entity.state, event)
                    entity.payloads.append(encode(event))

    def compare(self) -> None:
        """Opens the store and compares every byte of every event."""
        store = _native.Store.open_log(
            str(self.store),
            shards=SHARDS,
            segment_bytes=self.segment_bytes,
            max_unit_bytes=MAX_UNIT_BYTES,
            max_queue_bytes=1 << 26,
            clock=None,
        )
        try:
            opened = store.opened()
            self.counts.torn_tails += opened.get("torn") is not None
            self.counts.undecided_batches_copied += bool(opened.get("undecided_copied"))
            found: dict[str, list[bytes]] = {}
            position = clock = 0
            while page := store.read_from(position + 1, PAGE):
                for kind, name, revision, at, moment, event, version, payload, _ in page:
                    position += 1
                    payloads = found.setdefault(name, [])
                    payloads.append(payload)
                    if at != position or revision != len(payloads):
                        self._fail(f"{name} has revision {revision} at {at}; due: {len(payloads)} at {position}")
                    if (kind, event, version) != (KIND, EVENT_NAME, 1) or moment < clock:
                        self._fail(f"{name} revision {revision} is {kind} {event} v{version}, time {moment} <= {clock}")
                    clock = moment
        finally:
            store.close()
        self.counts.events_compared += position
        self._decide({index: self._commands(found.get(entity_name(index), [])) for index in range(len(self.entities))})
        for index, entity in enumerate(self.entities):
            if found.pop(entity_name(index), []) != entity.payloads:
                self._fail(f"{entity_name(index)} does not hold what was written, byte for byte")
        if found:
            self._fail(f"entities that nobody wrote: {sorted(found)[:5]}")

    def _commands(self, payloads: list[bytes]) -> int:
        if not payloads:
            return 0
        last = msgspec.msgpack.decode(payloads[-1], type=Wrote)
        if not last.last:
            self._fail(f"half a command is stored: {last.number} ends with its event {last.index}")
        return last.number

    def _fail(self, what: str) -> None:
        raise ViolationError(f"{what} (kill {self.kills} of {self.store})")


def run_cycles(cycles: int, seed: int, folder: Path, *, each: Callable[[Counts], None] | None = None) -> Counts:
    """Kills until `cycles` kills had a unit in flight; raises `ViolationError` at the first broken word.

    The folder of a life that broke its word stays where it is.
    """
    counts = Counts()
    rng = random.Random(seed)
    with Nursery() as nursery:
        while counts.cycles < cycles:
            counts.lives += 1
            place = folder / f"life-{counts.lives}"
            place.mkdir(parents=True)
            life = Life(place, seed * 1_000_003 + counts.lives, rng, counts)
            for _ in range(rng.choice((1, 1, 4, 12, 25))):
                life.kill(nursery)
                if rng.random() < 0.6:
                    life.compare()
                if each is not None:
                    each(counts)
                if counts.kills > 20 + 4 * cycles:
                    raise ViolationError(f"hardly a kill had a unit in flight: {counts}")
                if counts.cycles >= cycles:
                    break
            life.compare()
            shutil.rmtree(place)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 at random moments, and a comparison of every byte after it.")
    parser.add_argument("cycles", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()

    def progress(counts: Counts) -> None:
        if counts.kills % 1_000 == 0:
            print(f"  {counts} after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    try:
        counts = run_cycles(arguments.cycles, arguments.seed, arguments.folder, each=progress)
    except ViolationError as error:
        print(error)
        return 1
    print(f"  {counts} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(msgspec.json.encode(counts).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
