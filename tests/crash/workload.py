"""What the crash tests store: commands whose events anyone can compute again from five numbers."""

from __future__ import annotations

import hashlib
import zlib

import msgspec

import ego

KIND = "crash"
EVENT_NAME = "crash.wrote"


class Write(ego.Command):
    seed: int
    cycle: int
    number: int


@ego.stored(EVENT_NAME)
class Wrote(ego.Event):
    number: int
    index: int
    last: bool
    blob: bytes


class Written(ego.State):
    commands: int = 0
    events: int = 0
    crc: int = 0


class Writer(ego.EventSourcedBehavior[Write, Wrote, Written]):
    kind = KIND

    def initial_state(self) -> Written:
        return Written()

    def handle_command(self, command: Write, state: Written, /) -> list[Wrote]:
        return events_of(command.seed, command.cycle, self.id, command.number)

    def handle_event(self, event: Wrote, state: Written, /) -> Written:
        return fold(state, event)


def fold(state: Written, event: Wrote) -> Written:
    return Written(commands=state.commands + event.last, events=state.events + 1, crc=zlib.crc32(event.blob, state.crc))


def events_of(seed: int, cycle: int, entity: str, number: int) -> list[Wrote]:
    """One to three events: mostly small, now and then empty, one in sixteen larger than a page."""
    source = hashlib.shake_128(f"{seed}/{cycle}/{entity}/{number}".encode())
    shape = source.digest(8)
    count = 1 + shape[0] % 3
    sizes = [20_000 * shape[1 + i] // 255 if shape[4 + i] < 16 else shape[1 + i] for i in range(count)]
    stream = source.digest(8 + sum(sizes))[8:]
    events: list[Wrote] = []
    for index, size in enumerate(sizes):
        events.append(Wrote(number, index, index == count - 1, stream[:size]))
        stream = stream[size:]
    return events


encode = msgspec.msgpack.Encoder().encode


def entity_name(index: int) -> str:
    return f"e-{index}"
