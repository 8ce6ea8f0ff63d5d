"""Options are checked before anything happens, and named with their value."""

import math
from pathlib import Path
from typing import Any

import pytest

import ego
from ego._config import check_seconds


@pytest.mark.parametrize("name", ["", "x" * 256, "two\nlines", "tab\t", "\x85", 5, None, b"bytes"])
def test_the_name_of_an_engine(name: Any) -> None:
    with pytest.raises(ego.ConfigError, match="name must") as caught:
        ego.Engine(name, ego.MemoryStore())
    assert caught.value.option == "name"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("store", [None, "bank.ego", Path("bank.ego"), ego.MemoryStore])
def test_the_store_of_an_engine(store: Any) -> None:
    with pytest.raises(ego.ConfigError, match=r"store must be an ego\.LogStore or ego\.MemoryStore, not ") as caught:
        ego.Engine("bank", store)
    assert caught.value.option == "store"


@pytest.mark.parametrize("capacity", [0, -1, 2**31, 1.5, True, "8", None])
def test_the_capacity_of_a_mailbox(capacity: Any) -> None:
    with pytest.raises(ego.ConfigError, match=r"mailbox_capacity must .* not ") as caught:
        ego.Engine("bank", ego.MemoryStore(), mailbox_capacity=capacity)
    assert caught.value.option == "mailbox_capacity"
    assert repr(capacity) in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("shards", 0),
        ("shards", -1),
        ("shards", 2**16),
        ("shards", True),
        ("segment_bytes", 0),
        ("segment_bytes", 2**16 - 1),
        ("segment_bytes", 2**31 + 1),
        ("segment_bytes", "64"),
        ("max_unit_bytes", 0),
        ("max_unit_bytes", 1023),
        ("max_unit_bytes", 2**25 + 1),
        ("max_unit_bytes", None),
        ("max_queue_bytes", 0),
        ("max_queue_bytes", 2**24 - 1),
        ("max_queue_bytes", 1.5),
    ],
)
def test_the_options_of_a_log(option: str, value: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ego.ConfigError, match=rf"{option} must .* not ") as caught:
        ego.LogStore(tmp_path / "bank.ego", **options)
    assert caught.value.option == option
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("path", ["", "nul\0", b"bytes.ego", None, 5])
def test_the_path_of_a_log(path: Any) -> None:
    with pytest.raises(ego.ConfigError, match="path must be") as caught:
        ego.LogStore(path)
    assert caught.value.option == "path"


def test_options_are_keywords_only() -> None:
    engine: Any = ego.Engine
    log: Any = ego.LogStore
    with pytest.raises(TypeError):
        engine("bank", ego.MemoryStore(), [])
    with pytest.raises(TypeError):
        log("bank.ego", 128)


@pytest.mark.parametrize("seconds", [0, -1, 0.0, -0.5, math.nan, -math.inf, True, "5"])
def test_seconds_are_above_zero_or_none(seconds: Any) -> None:
    with pytest.raises(ego.ConfigError, match=r"timeout must be .* not "):
        check_seconds("timeout", seconds)


def test_seconds_that_are_fine() -> None:
    assert [check_seconds("timeout", each) for each in (None, 1, 0.5, math.inf)] == [None, 1.0, 0.5, math.inf]


def test_a_log_keeps_its_place_when_the_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = ego.LogStore("bank.ego")
    monkeypatch.chdir("/")
    assert store.path == str(tmp_path / "bank.ego")


def test_a_store_object_touches_nothing(tmp_path: Path) -> None:
    ego.Engine("bank", ego.LogStore(tmp_path / "bank.ego"))
    assert list(tmp_path.iterdir()) == []
