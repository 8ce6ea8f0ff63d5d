"""Every promise in GUARANTEES.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAMED = re.findall(r"`([\w./]+\.(?:py|rs))::(\w+)`", (REPOSITORY / "GUARANTEES.md").read_text())


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_the_named_test_exists(file: str, test: str) -> None:
    folder = REPOSITORY / ("tests" if file.endswith(".py") else "rust/core/tests")
    assert re.search(rf"^(async )?(def|fn) {test}\b", (folder / file).read_text(), re.MULTILINE)


def test_there_are_promises() -> None:
    assert len(NAMED) > 20
