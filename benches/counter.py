"""The entity that every benchmark drives, and the bare loop that does its work without an engine."""

from __future__ import annotations

import asyncio
import time

import msgspec
from rounds import Figures, percentile

import ego

PAYLOADS = (20, 100, 1024)
"""Bytes of an encoded event. The floors are for the first."""

SMALL = PAYLOADS[0]


class Add(ego.Command):
    by: int
    note: str


class Added(ego.Event):
    by: int
    note: str


class Sum(ego.State):
    value: int = 0


class Counter(ego.EventSourcedBehavior[Add, Added, Sum]):
    def initial_state(self) -> Sum:
        return Sum()

    def handle_command(self, command: Add, state: Sum, /) -> Added:
        return Added(command.by, command.note)

    def handle_event(self, event: Added, state: Sum, /) -> Sum:
        return Sum(state.value + event.by)


def add_with_payload(payload: int) -> Add:
    """The command whose event is encoded in exactly `payload` bytes."""
    encode = msgspec.msgpack.Encoder().encode
    length = payload - len(encode(Added(1, "")))
    while len(encode(Added(1, "x" * length))) > payload:
        length -= 1
    return Add(1, "x" * length)


def bare_loop(payload: int, commands: int = 500_000) -> Figures:
    """The same handlers and one kept encoder, called in a loop: what nobody can be faster than."""
    counter, command = Counter("bare"), add_with_payload(payload)
    handle_command, handle_event = counter.handle_command, counter.handle_event
    encode = msgspec.msgpack.Encoder().encode
    state = counter.initial_state()
    start = time.perf_counter()
    for _ in range(commands):
        event = handle_command(command, state)
        encode(event)
        state = handle_event(event, state)
    return {"rate": commands / (time.perf_counter() - start)}


Store = ego.MemoryStore | ego.LogStore


async def drive(store: Store, payload: int, callers: int, each: int, *, timed: bool) -> Figures:
    """`callers` tasks, each with an entity of its own and each awaiting every answer before it sends again."""
    command = add_with_payload(payload)
    seconds: list[float] = []
    async with ego.Engine("bench", store, behaviors=[Counter]) as engine:
        refs = [engine.get(Counter, f"e-{number}") for number in range(callers)]
        for ref in refs:
            await ref.state()

        async def caller(ref: ego.EntityRef[Add, Sum]) -> None:
            for _ in range(each):
                await ref.send(command, timeout=None)

        async def timed_caller(ref: ego.EntityRef[Add, Sum]) -> None:
            clock = time.perf_counter
            for _ in range(each):
                start = clock()
                await ref.send(command, timeout=None)
                seconds.append(clock() - start)

        body = timed_caller if timed else caller
        start = time.perf_counter()
        if callers == 1:
            await body(refs[0])
        else:
            async with asyncio.TaskGroup() as group:
                for ref in refs:
                    group.create_task(body(ref))
        rate = callers * each / (time.perf_counter() - start)
    if not timed:
        return {"rate": rate}
    seconds.sort()
    return {"rate": rate, "p50": percentile(seconds, 50), "p99": percentile(seconds, 99)}


def memory(payload: int, callers: int) -> Figures:
    return asyncio.run(drive(ego.MemoryStore(), payload, callers, 1_000_000 // callers, timed=False))
