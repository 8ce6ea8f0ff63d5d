"""Breaks the engine on purpose, one promise at a time, and shows which test notices.

    python tools/sabotage.py [--only NAME]...

Each sabotage is a small change that compiles. It is applied to a copy of the sources below build/, and the tests that
should notice are run there. One that nothing notices is a FAIL: then a promise stands on no test.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / "build" / "sabotage"
COMMITTER = "rust/core/src/log/committer.rs"
RECOVERY = "rust/core/src/log/recovery.rs"


@dataclass(frozen=True)
class Sabotage:
    """A promise, the changes (file, before, after) that break it, and the tests that should fail then."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    rust: str = ""
    python: str = ""


SABOTAGES = (
    Sabotage(
        "skip the sync",
        (
            (
                COMMITTER,
                'self.file.datasync().map_err(|e| StoreError::io(path(), "syncing a batch", e))?;',
                "",
            ),
        ),
        rust="durability",
    ),
    Sabotage(
        "answer before the sync",
        (
            (
                COMMITTER,
                "            self.write_batch(pending, next, count)?;\n            next += count;",
                "            self.shared.settlement.settle(pending.first_ticket + (next + count) as Ticket - 1);\n"
                "            self.write_batch(pending, next, count)?;\n"
                "            next += count;",
            ),
        ),
        rust="durability",
    ),
    Sabotage(
        "ignore a record checksum",
        (
            (
                "rust/core/src/log/format.rs",
                "if u32_at(bytes, 4) != crc32c(covered) {",
                "if u32_at(bytes, 4) != crc32c(covered) && covered.is_empty() {",
            ),
        ),
        rust="damage",
    ),
    Sabotage(
        "truncate at the first bad batch",
        (
            (
                RECOVERY,
                "if let Some(later) = scanner.later_batch()? {",
                "if let Some(later) = scanner.later_batch()?.filter(|_| false) {",
            ),
        ),
        rust="damage",
    ),
    Sabotage(
        "publish before commit",
        (
            (
                COMMITTER,
                'self.file.write_at(bytes, place.offset).map_err(|e| StoreError::io(path(), "writing a batch", e))?;',
                "self.shared.heads.lock().publish();\n"
                'self.file.write_at(bytes, place.offset).map_err(|e| StoreError::io(path(), "writing a batch", e))?;',
            ),
        ),
        rust="durability",
    ),
    Sabotage(
        "forget the roll-back of a refused command",
        (
            (
                "rust/engine/src/entity.rs",
                "if slot.generation() == generation { slot.reset() } else { return }",
                "if slot.generation() == generation { return } else { slot.reset() }",
            ),
            (
                "rust/engine/src/dispatch.rs",
                "let lost = matches!(fate(self.journal(), live.last_ticket), Fate::Lost(_));",
                "let lost = false;",
            ),
        ),
        python="tests/contract/test_full_store.py",
    ),
    Sabotage(
        "forget the command record",
        (
            (
                "rust/engine/src/turn.rs",
                "let carried = Carried { metadata: &terms.metadata, command: record };",
                "let carried = Carried { metadata: &terms.metadata, command: record.filter(|_| false) };",
            ),
        ),
        python="tests/contract/test_command_ids.py",
    ),
    Sabotage(
        "skip the generation check",
        (
            (
                "rust/engine/src/entity.rs",
                "if slot.generation() == generation { slot.reset() } else { return }",
                "if slot.generation() >= generation { slot.reset() } else { return }",
            ),
        ),
        python="tests/contract/test_full_store.py",
    ),
    Sabotage(
        "evict while not durable",
        (
            (
                "rust/engine/src/residents.rs",
                "!slot.is_taken() && slot.content().is_none_or(|live| is_durable(live.last_ticket))",
                "!slot.is_taken() && slot.content().is_none_or(|live| is_durable(live.last_ticket.min(0)))",
            ),
        ),
        python="tests/contract/test_passivation.py",
    ),
    Sabotage(
        "reset the passivation timer never",
        (
            (
                "rust/engine/src/residents.rs",
                "    entity.last_used.set(py, engine.house.clock.monotonic_nanos_at_tick());\n",
                "",
            ),
        ),
        python="tests/contract/test_passivation.py",
    ),
    Sabotage(
        "serve the undecided last batch without copying it",
        (
            (
                RECOVERY,
                "return Ok(held.header.is_clean_close());",
                "return Ok(held.header.number > 0);",
            ),
        ),
        rust="damage",
    ),
    Sabotage(
        "reuse a revision",
        (
            (
                COMMITTER,
                "if unit.first_revision() != held.revision + 1 {",
                "if unit.first_revision() > held.revision + 1 {",
            ),
        ),
        rust="journal_contract",
    ),
    Sabotage(
        "show readers a batch before its sync",
        (
            (
                COMMITTER,
                'self.file.datasync().map_err(|e| StoreError::io(path(), "syncing a batch", e))?;',
                "",
            ),
            (
                COMMITTER,
                "        self.shared.batches.fetch_add(1, Ordering::Relaxed);\n",
                '        self.file.datasync().map_err(|e| StoreError::io(path(), "syncing a batch", e))?;\n'
                "        self.shared.batches.fetch_add(1, Ordering::Relaxed);\n",
            ),
        ),
        rust="feed_durable",
    ),
    Sabotage(
        "move past an event whose handler failed",
        (
            (
                "python/ego/_projections/_runner.py",
                "return await self._one_by_one(page[number:], error)",
                "return await self._one_by_one(page[number + 1 :], None)",
            ),
        ),
        python="tests/contract/test_projection_failures.py",
    ),
)


def copy_sources(folder: Path) -> None:
    """Copies what is tracked or new, so that a change not committed yet is tested too."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        source, target = REPOSITORY / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_bytes() != source.read_bytes():
                shutil.copyfile(source, target)


def environment() -> dict[str, str]:
    return os.environ | {"CARGO_TARGET_DIR": str(WORK / "target"), "PYO3_PYTHON": sys.executable}


def run(command: list[str], folder: Path, extra: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=folder, env=environment() | (extra or {}), capture_output=True, text=True, timeout=900, check=False
    )
    return done.returncode, done.stdout + done.stderr


def failing_rust_tests(folder: Path, suite: str) -> tuple[int, list[str], str]:
    built, text = run(["cargo", "test", "--locked", "-p", "ego-core", "--test", suite, "--no-run"], folder)
    if built != 0:
        return built, [], "it does not compile:\n" + text
    code, text = run(["cargo", "test", "--locked", "-p", "ego-core", "--test", suite], folder)
    return code, [f"{suite}::{name}" for name in re.findall(r"^test (\S+) \.\.\. FAILED$", text, re.MULTILINE)], text


def failing_python_tests(folder: Path, suite: str) -> tuple[int, list[str], str]:
    built, text = run(["cargo", "build", "--locked", "-p", "ego-py"], folder)
    if built != 0:
        return built, [], "it does not compile:\n" + text
    python = install(folder)
    code, text = run([python, "-m", "pytest", "-q", suite], folder)
    return code, re.findall(r"^FAILED (\S+)", text, re.MULTILINE), text


def install(folder: Path) -> str:
    """Installs the broken build into an environment of its own, which borrows the tools of this one."""
    place = WORK / "venv"
    if not place.exists():
        venv.create(place, symlinks=True, with_pip=False)
    python = str(place / "bin" / "python")
    code, packages = run([python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'), end='')"], folder)
    if code != 0:
        raise RuntimeError(packages)
    installed = Path(packages) / "ego"
    shutil.rmtree(installed, ignore_errors=True)
    shutil.copytree(folder / "python" / "ego", installed)
    shutil.copyfile(WORK / "target" / "debug" / "lib_native.so", installed / "_native.so")
    (Path(packages) / "tools.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def noticed(sabotage: Sabotage, folder: Path) -> tuple[bool, str]:
    """Applies a sabotage and says which tests fail; the copy is whole again afterwards."""
    whole = {name: (folder / name).read_text() for name, _, _ in sabotage.edits}
    for name, before, after in sabotage.edits:
        text = (folder / name).read_text()
        if text.count(before) != 1:
            return False, f"{name} does not hold exactly once: {before.strip()}"
        (folder / name).write_text(text.replace(before, after))
    try:
        if sabotage.rust:
            code, failing, text = failing_rust_tests(folder, sabotage.rust)
        else:
            code, failing, text = failing_python_tests(folder, sabotage.python)
    except subprocess.TimeoutExpired:
        return False, "the tests hang instead of failing"
    finally:
        for name, text in whole.items():
            (folder / name).write_text(text)
    if code == 0 or not failing:
        return False, "no test failed" if code == 0 else text[-2000:]
    return True, ", ".join(failing)


def main() -> int:
    parser = argparse.ArgumentParser(description="Breaks the engine on purpose and shows which test notices.")
    parser.add_argument("--only", action="append", choices=[s.name for s in SABOTAGES], help="this one alone")
    arguments = parser.parse_args()
    folder = WORK / "source"
    copy_sources(folder)
    missed = 0
    chosen = [s for s in SABOTAGES if not arguments.only or s.name in arguments.only]
    for sabotage in chosen:
        caught, by = noticed(sabotage, folder)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED':7} {sabotage.name:52} {by}", flush=True)
    print(f"{len(chosen) - missed} caught, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
