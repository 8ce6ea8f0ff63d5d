"""What `import ego` costs and does, and what it says where it cannot work."""

import json
import subprocess
import sys
from inspect import ismodule
from pathlib import Path
from typing import Any

import ego

LIMIT_SECONDS = 0.060

LOOK = """
import logging, sys
import ego
print(json_dumps({
    "asyncio": "asyncio" in sys.modules,
    "logger": "ego" in logging.Logger.manager.loggerDict,
    "threads": __import__("threading").active_count(),
}))
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_takes_under_sixty_milliseconds() -> None:
    code = "import time; start = time.process_time(); import ego; print(time.process_time() - start)"
    assert min(float(python(code).stdout) for _ in range(5)) < LIMIT_SECONDS


def test_importing_sets_up_nothing() -> None:
    done = python("from json import dumps as json_dumps" + LOOK)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == {"asyncio": False, "logger": False, "threads": 1}
    assert done.stderr == ""


def test_one_line_says_why_there_is_no_native_module() -> None:
    done = python("import sys; sys.modules['ego._native'] = None; import ego")
    assert done.returncode == 1
    assert "ModuleNotFoundError" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(
        "ImportError: ego runs on Linux only and needs its native module, built for this interpreter:"
    )
    assert line.endswith(f"(this is Python {sys.version_info.major}.{sys.version_info.minor} on linux)")


def test_the_public_names() -> None:
    assert sorted(ego.__all__) == ego.__all__
    assert [name for name in ego.__all__ if not hasattr(ego, name)] == []
    # A submodule that another test imported is an attribute of the package too.
    public = {name for name, value in vars(ego).items() if not name.startswith("_") and not ismodule(value)}
    assert public == set(ego.__all__) - {"__version__"}


def test_the_names_that_there_are() -> None:
    errors = {name for name in ego.__all__ if name.endswith("Error")}
    assert set(ego.__all__) - errors == {
        "MUST_EXIST", "MUST_NOT_EXIST", "Command", "Context", "Cursor", "DeadLetter", "DurableStateBehavior",
        "Engine", "EntityRef", "Event", "EventEnvelope", "EventSourcedBehavior", "Expected", "Fail", "Kind",
        "LogStore", "MemoryStore", "Projection", "ProjectionStatus", "ReadModelDifference", "ReadModelTransaction",
        "Rejection", "RetryAndFail", "RetryAndSkip", "SQLiteReadModel", "Skip", "State", "StateEnvelope",
        "StopReport", "context", "stored", "upcast", "__version__",
    }  # fmt: skip


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import requires, version

    assert ego.__version__ == version("ego-engine")
    assert requires("ego-engine") == ["msgspec>=0.22"]


def test_the_package_is_typed() -> None:
    package = Path(ego.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_native.pyi").exists()
