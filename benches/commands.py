"""What a command may carry beside a plain one, on the disk; durable states beside their bare loop."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from counter import SMALL, Add, Counter, Sum, add_with_payload
from rounds import Figures, Group, Measurement, Ratio

import ego

MEMORY_COMMANDS = 500_000
CALLERS = 1_000
EACH = 300
METADATA = {"correlation_id": "5f2c9a52-77f8-4f3d-93c5-0c9f26f8a1de", "user": "u-4711"}


class Total(ego.DurableStateBehavior[Add, Sum]):
    def initial_state(self) -> Sum:
        return Sum()

    def handle_command(self, command: Add, version: int, state: Sum, /) -> tuple[Sum, int]:
        return Sum(state.value + command.by), version + 1


def groups(folder: Path) -> Iterator[Group]:
    yield Group(
        "durable states in memory",
        [Measurement("bare state loop", bare_state_loop), Measurement("durable state", durable_state)],
        [
            Ratio(
                "durable state on the memory store, 1 caller",
                ("durable state", "rate"),
                ("bare state loop", "rate"),
                floor=0.4,
                aim=0.55,
                payload=SMALL,
            )
        ],
    )
    yield Group(
        "what a command carries, log",
        [
            Measurement("plain", partial(carrying, folder, "nothing")),
            Measurement("with a command id", partial(carrying, folder, "id")),
            Measurement("with metadata", partial(carrying, folder, "metadata")),
        ],
        [
            Ratio(
                "time of a command with an id by a plain one, 1,000 callers",
                ("plain", "rate"),
                ("with a command id", "rate"),
                "lower",
                floor=1.4,
                aim=1.2,
                payload=SMALL,
            ),
            Ratio(
                "time of a command with metadata by a plain one, 1,000 callers",
                ("plain", "rate"),
                ("with metadata", "rate"),
                "lower",
                floor=1.15,
                aim=1.08,
                payload=SMALL,
            ),
        ],
    )


def bare_state_loop() -> Figures:
    """The handler and one kept encoder of the state, called in a loop."""
    total, command = Total("bare"), add_with_payload(SMALL)
    handle_command = total.handle_command
    encode = msgspec.msgpack.Encoder().encode
    state, version = total.initial_state(), 0
    start = time.perf_counter()
    for _ in range(MEMORY_COMMANDS):
        state, version = handle_command(command, version, state)
        encode(state)
    return {"rate": MEMORY_COMMANDS / (time.perf_counter() - start)}


def durable_state() -> Figures:
    async def main() -> Figures:
        command = add_with_payload(SMALL)
        async with ego.Engine("bench", ego.MemoryStore(), behaviors=[Total]) as engine:
            send = engine.get(Total, "e-0").send
            await send(command)
            start = time.perf_counter()
            for _ in range(MEMORY_COMMANDS):
                await send(command, timeout=None)
            return {"rate": MEMORY_COMMANDS / (time.perf_counter() - start)}

    return asyncio.run(main())


def carrying(folder: Path, what: str) -> Figures:
    """1,000 tasks, each with an entity of its own and each awaiting every answer before it sends again."""
    store = folder / "log"

    async def main() -> Figures:
        command = add_with_payload(SMALL)
        ids = [[f"{number}-{n}" for n in range(EACH)] for number in range(CALLERS)]
        async with ego.Engine("bench", ego.LogStore(store), behaviors=[Counter]) as engine:
            refs = [engine.get(Counter, f"e-{number}") for number in range(CALLERS)]
            for ref in refs:
                await ref.state()

            async def caller(ref: ego.EntityRef[Add, Sum], ids: list[str]) -> None:
                send = ref.send
                if what == "id":
                    for each in ids:
                        await send(command, timeout=None, command_id=each)
                elif what == "metadata":
                    for _ in ids:
                        await send(command, timeout=None, metadata=METADATA)
                else:
                    for _ in ids:
                        await send(command, timeout=None)

            start = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for ref, own in zip(refs, ids, strict=True):
                    group.create_task(caller(ref, own))
            return {"rate": CALLERS * EACH / (time.perf_counter() - start)}

    try:
        return asyncio.run(main())
    finally:
        shutil.rmtree(store, ignore_errors=True)
