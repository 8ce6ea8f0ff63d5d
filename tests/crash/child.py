"""The process that is killed.

A nursery process imports everything once, then forks a child per cycle: the kill costs no interpreter start. It reads a
`Plan` per line on its standard input and answers `pid N`, then what the child says (`ready` when it has read the store
back, `ack` when the acknowledgement that the plan waits for is in the ledger), then `gone STATUS`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import msgspec
from ledger import Ledger
from workload import Write, Writer, Written, entity_name

import ego


class Plan(msgspec.Struct, frozen=True):
    """One child's life. With `acks` 0 it is killed at its start: opening, reading back or first writing."""

    store: str
    ledger: str
    seed: int
    cycle: int
    writers: int
    entities: int
    acks: int
    segment_bytes: int


async def write_until_killed(plan: Plan) -> None:
    ledger = Ledger(Path(plan.ledger))
    store = ego.LogStore(plan.store, segment_bytes=plan.segment_bytes, max_unit_bytes=MAX_UNIT_BYTES)
    async with ego.Engine("crash", store, behaviors=[Writer]) as engine:
        refs = [engine.get(Writer, entity_name(index)) for index in range(plan.entities)]
        numbers: list[int] = []
        for index, ref in enumerate(refs):
            state, revision = await ref.state()
            numbers.append(state.commands)
            ledger.write("R", index, state.commands, revision, state.crc)
            if state.commands:
                await expect_remembered(ref, plan, state.commands)
        ledger.write("Z")
        acknowledged = 0

        async def writer(rng: random.Random) -> NoReturn:
            nonlocal acknowledged
            while True:
                index = rng.randrange(plan.entities)
                numbers[index] += 1
                number = numbers[index]
                answer = refs[index].send(Write(plan.seed, plan.cycle, number), timeout=None, command_id=str(number))
                ledger.write("S", index, number)
                _, revision = await answer
                ledger.write("A", index, number, revision)
                acknowledged += 1
                if acknowledged == plan.acks:
                    os.write(1, b"ack\n")

        async with asyncio.TaskGroup() as group:
            for index in range(plan.writers):
                group.create_task(writer(random.Random(f"{plan.seed}/{plan.cycle}/{index}")))


async def expect_remembered(ref: ego.EntityRef[Write, Written], plan: Plan, stored: int) -> None:
    """The ids of what an earlier child stored belong to its commands: a command of this cycle is another one."""
    for number in {stored, max(1, stored - 100)}:
        try:
            answer = await ref.send(Write(plan.seed, plan.cycle, number), timeout=None, command_id=str(number))
        except ego.CommandIdReusedError:
            continue
        raise AssertionError(f"command {number} of {ref} is stored and not remembered: {answer}")


MAX_UNIT_BYTES = 256 * 1024


def nursery() -> None:
    decoder = msgspec.json.Decoder(Plan)
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            try:
                os.write(1, b"pid %d\n" % os.getpid())
                asyncio.run(write_until_killed(decoder.decode(line)))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"gone %d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    nursery()
