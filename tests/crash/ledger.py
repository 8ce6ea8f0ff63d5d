"""The acknowledgement file of a crash test: what a writer was told, kept where the store cannot lose it.

A line is `LENGTH:WORD NUMBER...` and a line feed, written with one call. The page cache survives a kill, so nothing is
synced; a line cut by the kill has the wrong length and is recognised. Words: `S` sent and accepted, `A` acknowledged,
`R` read back at the start, `Z` everything read back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    word: str
    numbers: tuple[int, ...]


class Ledger:
    """Writes lines; one `write` call each, nothing is buffered in the process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, word: str, *numbers: int) -> None:
        body = " ".join((word, *map(str, numbers))).encode()
        os.write(self._descriptor, b"%d:%b\n" % (len(body), body))


def read_ledger(path: Path) -> list[Line]:
    """Every whole line; what follows the first torn one was never written."""
    lines: list[Line] = []
    for raw in path.read_bytes().split(b"\n"):
        length, colon, body = raw.partition(b":")
        if not colon or not length.isdigit() or int(length) != len(body):
            break
        word, *numbers = body.decode("ascii").split(" ")
        lines.append(Line(word, tuple(map(int, numbers))))
    return lines
