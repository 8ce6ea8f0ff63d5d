"""Every Python block of the documents runs, from the top of its page to the end, and prints what the page says.

A block that is followed by a `text` block must print just that. Blocks of one page that are no whole program of their
own share their names.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)

SNIPPETS = [
    pytest.param(found[1], found[2], id=f"{page.name}:{page.read_text().count(chr(10), 0, found.start()) + 1}")
    for page in PAGES
    for found in BLOCK.finditer(page.read_text())
]


@pytest.mark.parametrize(("code", "output"), SNIPPETS)
def test_a_snippet_runs(code: str, output: str | None, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    if output is not None:
        assert done.stdout == output


def test_the_readme_has_snippets() -> None:
    assert len(BLOCK.findall((ROOT / "README.md").read_text())) >= 3
