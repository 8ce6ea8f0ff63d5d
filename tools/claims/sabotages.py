"""Every promise that is broken on purpose is noticed by a named test: tools/sabotage.py."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from claims.row import REPOSITORY, Row, Scale


def check(_: Scale) -> Iterator[Row]:
    command = [sys.executable, str(REPOSITORY / "tools" / "sabotage.py")]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    summary = re.search(r"^(\d+) caught, (\d+) missed$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or summary is None:
        print(done.stdout, file=sys.stderr)
    caught, missed = (int(count) for count in summary.groups()) if summary else (0, 0)
    passed = done.returncode == 0 and caught > 0
    yield Row("sabotages", f"{caught} caught, {missed} missed", "0 missed", passed, cases=caught + missed)
