"""Small and in order: import time, wheel, files, and a plan of the house that agrees with the tree."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from claims.row import REPOSITORY, Row, Scale

IMPORT_MS = 60.0
WHEEL_MB = 5.0
FILE_LINES = 700
SEAM_LINES = 2_500
IMPORT_ROUNDS = 11

TIME_IMPORT = "import time; start = time.perf_counter(); import ego; print(time.perf_counter() - start)"
SOURCES = {".rs", ".py", ".pyi", ".md", ".toml", ".sh", ".patch"}
LOCK_FILES = {"Cargo.lock"}


def check(_: Scale) -> Iterator[Row]:
    yield import_time()
    yield wheel_size()
    files = source_files()
    longest = max(files, key=lines_of)
    yield Row(
        claim="longest file",
        figure=f"{lines_of(longest)} lines ({longest.relative_to(REPOSITORY)})",
        bound=f"<= {FILE_LINES} lines",
        cases=len(files),
        passed=lines_of(longest) <= FILE_LINES,
    )
    yield seam_is_thin(files)
    yield unsafe_has_reasons(files)
    yield rooms_agree(files)


def seam_is_thin(files: list[Path]) -> Row:
    """The lines of `rust/py`; those of the two crates below it that know Python are told beside them."""
    lines: dict[str, int] = {}
    for crate in ("py", "engine", "answer"):
        folder = REPOSITORY / "rust" / crate
        lines[crate] = sum(lines_of(path) for path in files if path.is_relative_to(folder) and path.suffix == ".rs")
    figure = f"{lines['py']} lines (engine {lines['engine']}, answer {lines['answer']})"
    return Row("the seam, rust/py", figure, f"< {SEAM_LINES} lines", 0 < lines["py"] < SEAM_LINES, cases=len(lines))


def import_time() -> Row:
    command = [sys.executable, "-c", TIME_IMPORT]
    times = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1e3
        for _ in range(IMPORT_ROUNDS)
    ]
    median = statistics.median(times)
    return Row("import ego", f"{median:.1f} ms", f"< {IMPORT_MS:.0f} ms", median < IMPORT_MS, cases=IMPORT_ROUNDS)


def wheel_size() -> Row:
    """The newest wheel: in dist/, or where `make` keeps the one that it installed."""
    folders = (REPOSITORY / "dist", Path(sys.prefix) / "wheel")
    wheels = [wheel for folder in folders for wheel in folder.glob("ego_engine-*.whl")]
    bound = f"< {WHEEL_MB:.0f} MB"
    if not wheels:
        return Row("wheel", "none in dist/: run `make wheel`", bound, False)
    megabytes = max(wheels, key=lambda path: path.stat().st_mtime).stat().st_size / 1e6
    return Row("wheel", f"{megabytes:.2f} MB", bound, megabytes < WHEEL_MB)


def source_files() -> list[Path]:
    """What git tracks or would track, less generated lock files."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [REPOSITORY / name for name in names]
    return [path for path in paths if path.suffix in SOURCES and path.name not in LOCK_FILES and path.is_file()]


def lines_of(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def unsafe_has_reasons(files: list[Path]) -> Row:
    """Each module that needs `unsafe` says why; that each block says why it is sound is a lint."""
    blocks = {
        path: len(re.findall(r"\bunsafe (?:\{|impl|fn|extern)", path.read_text())) for path in files if in_rust(path)
    }
    used = {path: count for path, count in blocks.items() if count}
    silent = [path for path in used if not re.search(r"expect\(unsafe_code, reason = ", path.read_text())]
    figure = f"{sum(used.values())} in {len(used)} files, {len(silent)} without a reason"
    return Row("uses of unsafe", figure, "0 without a reason", not silent, cases=len(used))


def in_rust(path: Path) -> bool:
    return path.suffix == ".rs" and path.is_relative_to(REPOSITORY / "rust")


def rooms_agree(files: list[Path]) -> Row:
    """Every source file of the engine stands in ARCHITECTURE.md, and every path that it names exists."""
    claim, bound = "ARCHITECTURE.md and the tree", "0 rooms missing or too many"
    plan = REPOSITORY / "ARCHITECTURE.md"
    if not plan.exists():
        return Row(claim, "there is no ARCHITECTURE.md", bound, False)
    code = " ".join(a or b for a, b in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", plan.read_text(), re.DOTALL))
    words = set(re.findall(r"[\w./-]+", code))
    named = {part for word in words for part in word.split("/")}
    rooms = [path for path in files if is_room(path)]
    missing = [path for path in rooms if path.name not in named and path.stem not in named]
    known = {str(path.relative_to(REPOSITORY)) for path in files}
    ghosts = [word for word in words if is_path(word) and not any(holds(path, word) for path in known)]
    wrong = [str(path.relative_to(REPOSITORY)) for path in missing] + sorted(ghosts)
    return Row(claim, f"{len(wrong)} wrong {' '.join(wrong[:6])}".rstrip(), bound, not wrong, cases=len(rooms))


def is_room(path: Path) -> bool:
    place = str(path.relative_to(REPOSITORY))
    inside = re.match(r"rust/\w+/src/.*\.rs$|python/ego/.*\.pyi?$", place)
    return bool(inside) and path.name not in {"mod.rs", "lib.rs", "__init__.py"}


def is_path(word: str) -> bool:
    return word.endswith((".rs", ".py", ".pyi", ".md", ".toml")) or (word.endswith("/") and len(word) > 2)


def holds(path: str, word: str) -> bool:
    """Whether `word`, a file or a directory with a slash at its end, is `path`, part of it, or the end of it."""
    return f"/{word.lstrip('/')}" in f"/{path}" if word.endswith("/") else f"/{path}".endswith(f"/{word.lstrip('/')}")
