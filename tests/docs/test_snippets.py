"""Every Python block of the documents runs and prints what the page says.

A block that is followed by a `text` block must print just that.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


class Program(NamedTuple):
    """Blocks that share their names, and all that they print."""

    place: str
    code: str
    output: str | None


def programs(page: Path) -> Iterator[Program]:
    """A block that does not begin with an import goes on where the one before it ended."""
    text = page.read_text()
    together: list[list[re.Match[str]]] = []
    for block in BLOCK.finditer(text):
        if block[1].startswith(("import ", "from ")) or not together:
            together.append([])
        together[-1].append(block)
    for blocks in together:
        outputs = [block[2] for block in blocks if block[2] is not None]
        yield Program(
            place=f"{page.name}:{text.count(chr(10), 0, blocks[0].start()) + 1}",
            code="\n".join(block[1] for block in blocks),
            output="".join(outputs) if outputs else None,
        )


@pytest.mark.parametrize("program", [pytest.param(each, id=each.place) for page in PAGES for each in programs(page)])
def test_a_snippet_runs(program: Program, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program.code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    if program.output is not None:
        assert done.stdout == program.output


def test_the_readme_has_snippets() -> None:
    assert len(BLOCK.findall((ROOT / "README.md").read_text())) >= 3
