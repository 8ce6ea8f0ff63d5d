"""An engine under random load, and what becomes of it, as JSON: `soak.py SECONDS SEED FOLDER`.

Coroutines of the engine's loop and of two other loops in threads send to one engine on a `LogStore`: commands that are
answered, refused, too late, cancelled, repeated. Entities leave the memory all the while. Some writes are refused; now
and then one fails, which poisons the store, and the engine is restarted. Every request ends in one way, which is
counted; so is every warning that is not expected.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low as median
from typing import Any

import msgspec

import ego
from ego.testing import Faults, FaultyStore

ENTITIES = 2_000
HOT = 4
RESIDENT = 500
WINDOW = 64
PAUSE = 0.05
RUSH = 0.2
RESTART_EVERY = 5.0
EXPECTED_LOGS = ("engine soak: the store was closed after a failure",)


class Add(ego.Command):
    n: int
    how: str = "now"


class Added(ego.Event):
    n: int


class Sum(ego.State):
    value: int = 0


class RefusedError(ego.Rejection):
    n: int


def decided(command: Add, result: Any) -> Any:
    """What a handler returns for it."""
    match command.how:
        case "refuse":
            raise RefusedError(command.n)
        case "later":
            return later(result)
        case _:
            return result


async def later(result: Any) -> Any:
    await asyncio.sleep(0.001)
    return result


class Tally(ego.EventSourcedBehavior[Add, Added, Sum]):
    kind = "tally"

    def initial_state(self) -> Sum:
        return Sum()

    def handle_command(self, command: Add, _state: Sum) -> Any:
        return decided(command, Added(command.n))

    def handle_event(self, event: Added, state: Sum) -> Sum:
        return Sum(state.value + event.n)


class Register(ego.DurableStateBehavior[Add, Sum]):
    """For the few that are used all the time: their past does not grow."""

    kind = "register"

    def initial_state(self) -> Sum:
        return Sum()

    def handle_command(self, command: Add, version: int, state: Sum) -> Any:
        return decided(command, (Sum(state.value + command.n), version + 1))


EXPECTED = (
    ego.CommandTimeoutError,
    ego.MailboxFullError,
    ego.CommandIdReusedError,
    ego.StoreFullError,
    ego.OutcomeUnknownError,
    ego.StorePoisonedError,
    RefusedError,
    ego.EngineNotStartedError,
    asyncio.CancelledError,
)


@dataclass
class Counts:
    requests: int = 0
    answered: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    restarts: int = 0
    memory: tuple[int, int] = (0, 0)
    descriptors: tuple[int, int] = (0, 0)
    unexpected: list[str] = field(default_factory=list[str])


class Listener(logging.Handler):
    """Notes what is logged and not expected."""

    def __init__(self, counts: Counts) -> None:
        super().__init__(logging.WARNING)
        self.counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not text.startswith(EXPECTED_LOGS):
            self.counts.unexpected.append(text)


class Soak:
    """One engine, those who send to it, and what they count."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.counts, self.seed, self.faults = Counts(), seed, Faults()
        self.store = ego.LogStore(folder / "soak.ego")
        self.engine = ego.Engine(
            "soak",
            FaultyStore(self.store, self.faults),
            behaviors=[ego.Kind(kind, passivate_after=0.5, keep_command_ids=8) for kind in (Tally, Register)],
            mailbox_capacity=16,
            resident_limit=RESIDENT,
        )
        self.lock = threading.Lock()
        self.warm, self.over = threading.Event(), threading.Event()
        """Whether the first rush is over, in which buffers and tables come to their size; and whether all is."""

    def ended(self, outcome: str) -> None:
        with self.lock:
            self.counts.answered += 1
            self.counts.outcomes[outcome] += 1

    def begun(self) -> None:
        with self.lock:
            self.counts.requests += 1

    async def request(self, rng: random.Random) -> None:
        """One command, and how it ended."""
        self.begun()
        kind, count = (Tally, ENTITIES) if rng.random() < 0.9 else (Register, HOT)
        how = rng.choices(("now", "later", "refuse"), (8, 1, 1))[0]
        command_id = f"c-{rng.randrange(4)}" if rng.random() < 0.2 else None
        timeout = 0.0005 if rng.random() < 0.05 else 30.0
        try:
            ref = self.engine.get(kind, str(rng.randrange(count)))
            sent = ref.send(Add(1, how), timeout=timeout, command_id=command_id)
            answer = asyncio.ensure_future(sent)
            if rng.random() < 0.02:
                answer.cancel()
            await answer
        except EXPECTED as error:
            self.ended(type(error).__name__)
        except Exception as error:
            self.ended(type(error).__name__)
            with self.lock:
                self.counts.unexpected.append(repr(error))
        else:
            self.ended("answered")

    async def load(self, number: int) -> None:
        """Sends on this loop until the time is over, some at once."""
        rng = random.Random(self.seed + number)
        while not self.over.is_set():
            await asyncio.gather(*(self.request(rng) for _ in range(rng.randrange(1, WINDOW))))
            await asyncio.sleep(rng.random() * 2 * PAUSE if self.warm.is_set() else 0)

    def elsewhere(self, number: int) -> None:
        """The same on a loop of its own, in a thread."""
        asyncio.run(self.load(number))

    async def main(self, seconds: float) -> Counts:
        """Everything, for so long."""
        await self.engine.start()
        threads = [threading.Thread(target=self.elsewhere, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        loads = [asyncio.create_task(self.load(number)) for number in (3, 4)]
        memory, descriptors = list[int](), list[int]()
        rng, begun = random.Random(self.seed), time.monotonic()
        restarted = begun
        while (now := time.monotonic()) < begun + seconds:
            await asyncio.sleep(0.1)
            if now > begun + seconds * RUSH:
                self.warm.set()
            if rng.random() < 0.1:
                self.faults.refuse("append", times=rng.randrange(1, 8))
            if now > restarted + RESTART_EVERY:
                restarted = now
                await self.restart(rng.random() < 0.5)
                # Just after a start: later a store has as many files open as it had to read.
                descriptors.append(len(os.listdir("/proc/self/fd")))
            gc.collect()
            memory.append(resident_kib())
        self.over.set()
        await asyncio.gather(*loads)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await self.engine.stop()
        self.counts.memory, self.counts.descriptors = compared(memory), compared(descriptors)
        return self.counts

    async def restart(self, after_a_failed_write: bool) -> None:
        self.counts.restarts += 1
        if after_a_failed_write and not self.faults.unused():
            self.faults.fail("append")
            await self.request(random.Random(self.seed))
        report = await self.engine.stop()
        if report.queued or report.running or report.waiting:
            self.counts.unexpected.append(str(report))
        await self.engine.start()


def compared(samples: list[int]) -> tuple[int, int]:
    """The median around 30 % of the time, and that of the end."""
    tenth = max(len(samples) // 10, 1)
    return median(samples[tenth * 5 // 2 : tenth * 7 // 2]), median(samples[-tenth:])


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def main() -> None:
    seconds, seed, folder = sys.argv[1:]
    soak = Soak(int(seed), Path(folder))
    logging.getLogger().addHandler(Listener(soak.counts))
    logging.captureWarnings(True)
    warnings.simplefilter("always")
    counts = asyncio.run(soak.main(float(seconds)))
    print(msgspec.json.encode(counts).decode())


if __name__ == "__main__":
    main()
