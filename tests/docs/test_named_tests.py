"""Every test that a document names as its proof exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "GUARANTEES.md", "CONTRIBUTING.md")]
NAMED = sorted({
    found for page in PAGES if page.exists() for found in re.findall(r"`([\w/]+\.(?:py|rs))::(\w+)`", page.read_text())
})  # fmt: skip


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    path = ROOT / ("tests" if file.endswith(".py") else "rust/core/tests") / file
    assert re.search(rf"^\s*(?:async )?(?:def|fn) {name}\(", path.read_text(), re.MULTILINE)


def test_the_guarantees_name_tests() -> None:
    assert len(NAMED) > 20
