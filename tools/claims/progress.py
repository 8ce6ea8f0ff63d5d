"""Any number of entities with as many callers make progress; one entity with many callers counts without a gap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import ego
from claims.counter import Add, Counter, Sum
from claims.row import Row, Scale

ENTITIES = (2, 10, 1_000, 100_000)
CALLERS_OF_ONE = 1_000
DEADLINE = 120.0


Store = ego.MemoryStore | ego.LogStore


def check(scale: Scale) -> Iterator[Row]:
    stores: dict[str, Callable[[int], Store]] = {
        "memory": lambda _: ego.MemoryStore(),
        "log": lambda number: ego.LogStore(scale.folder / f"progress-{number}"),
    }
    more = 10 if scale.soak else 1
    for name, store in stores.items():
        for number in ENTITIES:
            yield asyncio.run(many_entities(name, store(number), number, more))
        yield asyncio.run(one_entity(name, store(1), 20 * more))


async def many_entities(name: str, store: Store, entities: int, more: int) -> Row:
    each = max(2, 10_000 // entities) * more
    async with ego.Engine("progress", store, behaviors=[Counter]) as engine:
        refs = [engine.get(Counter, f"e-{number}") for number in range(entities)]

        async def caller(ref: ego.EntityRef[Add, Sum]) -> int:
            revision = 0
            for _ in range(each):
                _, revision = await ref.send(Add(), timeout=None)
            return revision

        start = time.perf_counter()
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            callers = [group.create_task(caller(ref)) for ref in refs]
        seconds = time.perf_counter() - start
        behind = sum(task.result() != each for task in callers)
    return Row(
        claim=f"{entities:,} entities and callers, {name}",
        figure=f"{entities * each / seconds:,.0f} commands/s, {behind} behind",
        bound=f"all answered in {DEADLINE:.0f} s",
        passed=behind == 0,
        cases=entities * each,
    )


async def one_entity(name: str, store: Store, each: int) -> Row:
    seen: list[int] = []
    async with ego.Engine("progress", store, behaviors=[Counter]) as engine:
        ref = engine.get(Counter, "one")

        async def caller() -> None:
            for _ in range(each):
                state, revision = await ref.send(Add(), timeout=None)
                seen.append(revision if state.value == revision else -1)

        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            for _ in range(CALLERS_OF_ONE):
                group.create_task(caller())
    total = CALLERS_OF_ONE * each
    wrong = sum(revision != due for revision, due in zip(seen, range(1, total + 1), strict=True))
    return Row(
        claim=f"{CALLERS_OF_ONE:,} callers on one entity, {name}",
        figure=f"{wrong} out of order or missing",
        bound=f"revisions 1..{total:,}",
        passed=wrong == 0,
        cases=total,
    )
