"""mypy and basedpyright, both strict and without plugins, see what a user's program means.

`# is: X` after a `reveal_type` is what it must show, `# error` a line that must not pass; every other line must pass.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CASES = Path(__file__).parent / "cases"
FILES = sorted(CASES.glob("*.py"))


class Findings(NamedTuple):
    revealed: dict[tuple[str, int], str]
    errors: dict[tuple[str, int], str]


def expected() -> Findings:
    found = Findings({}, {})
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (revealed := re.search(r"# is: (.*)$", line)) is not None:
                found.revealed[path.name, number] = revealed[1]
            elif line.endswith("# error"):
                found.errors[path.name, number] = line.strip()
    return found


def plain(text: str) -> str:
    """A type without the modules of its names, its unions and literals in one spelling."""
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    text = re.sub(r"Union\[([^\[\]]+)\]", lambda found: found[1].replace(", ", " | "), text)
    return text.replace('"', "'").replace("Literal['not_run'] | Literal['unknown']", "Literal['not_run', 'unknown']")


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=CASES)


def mypy() -> Findings:
    options = ["--strict", "--config-file=", "--cache-dir=/dev/null", "--no-error-summary", "--hide-error-context"]
    done = run("mypy", *options, *map(str, FILES))
    assert done.stderr == ""
    found = Findings({}, {})
    for line in done.stdout.splitlines():
        parts = re.match(r"(.*?\.py):(\d+): (error|note): (.*)$", line)
        assert parts is not None, line
        place = (Path(parts[1]).name, int(parts[2]))
        if (revealed := re.match(r'Revealed type is "(.*)"$', parts[4])) is not None:
            found.revealed[place] = plain(revealed[1])
        elif parts[3] == "error":
            found.errors[place] = parts[4]
    return found


def basedpyright(tmp_path: Path) -> Findings:
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps({"typeCheckingMode": "strict", "include": [str(CASES)], "extraPaths": [str(CASES)]}))
    done = run("basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config))
    report: dict[str, Any] = json.loads(done.stdout)
    found = Findings({}, {})
    for each in report["generalDiagnostics"]:
        place = (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        revealed = re.match(r'Type of ".*" is "(.*)"$', each["message"], re.DOTALL)
        if revealed is not None:
            found.revealed[place] = plain(revealed[1])
        elif each["severity"] in ("error", "warning"):
            found.errors[place] = each["message"]
    return found


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_the_checkers_agree_with_the_comments(checker: str, tmp_path: Path) -> None:
    wanted = expected()
    assert len(wanted.revealed) > 20
    assert len(wanted.errors) > 25
    found = mypy() if checker == "mypy" else basedpyright(tmp_path)
    assert found.revealed == wanted.revealed
    assert {place: found.errors.get(place) for place in wanted.errors if place not in found.errors} == {}
    assert {place: text for place, text in found.errors.items() if place not in wanted.errors} == {}
