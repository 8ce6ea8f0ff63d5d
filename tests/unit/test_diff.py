"""What `diff` finds in two read models, against a comparison in memory. `EGO_SEED=n` runs one seed again."""

import os
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ego._projections._diff import RowDifference, diff

SEEDS = [int(os.environ["EGO_SEED"])] if "EGO_SEED" in os.environ else range(60)


def made(path: Path, *statements: str, rows: list[tuple[Any, ...]] | None = None) -> Path:
    with closing(sqlite3.connect(path)) as file, file:
        for each in statements:
            file.execute(each)
        if rows:
            file.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
    return path


def a_value(dice: random.Random) -> Any:
    values = [None, 0, 1, 1.0, -1, 0.5, 2**60, 1e300, "", "a", "A", "B", "é", "𝄞", "￿", "1", b"", b"a", b"\xff"]
    return dice.choice(values)


def typed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((type(value).__name__, value) for value in row)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_of_a_table_without_a_key_are_counted(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    old, new = ([(a_value(dice), a_value(dice)) for _ in range(dice.randrange(120))] for _ in range(2))
    table = f"CREATE TABLE t (a COLLATE {dice.choice(['BINARY', 'NOCASE'])}, b)"
    found = diff(made(tmp_path / "1", table, rows=old), made(tmp_path / "2", table, rows=new)).tables[0]
    here, there = Counter(map(typed, old)), Counter(map(typed, new))
    assert (found.same, found.only_old, found.only_new, found.different) == (
        (here & there).total(), (here - there).total(), (there - here).total(), 0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_of_a_table_with_a_key_are_matched_by_it(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    keys = [None, *range(8), *"abcdeABé", b"a", b"\x00"]
    keys.remove(None)
    old, new = (
        {(dice.choice(keys), dice.choice(keys)): a_value(dice) for _ in range(dice.randrange(150))} for _ in range(2)
    )
    table = f"CREATE TABLE t (a, v, b, PRIMARY KEY (b, a)) {dice.choice(['', 'WITHOUT ROWID'])}"
    one = made(tmp_path / "1", table, rows=[(a, value, b) for (a, b), value in old.items()])
    other = made(tmp_path / "2", table, rows=[(a, value, b) for (a, b), value in new.items()])
    found = diff(one, other).tables[0]
    both = old.keys() & new.keys()
    same = sum(typed((old[key],)) == typed((new[key],)) for key in both)
    assert (found.same, found.only_old, found.only_new, found.different) == (
        same, len(old.keys() - both), len(new.keys() - both), len(both) - same,
    )  # fmt: skip


def test_schemas_are_compared_and_rows_in_the_columns_of_both(tmp_path: Path) -> None:
    old = made(tmp_path / "1", "CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "CREATE TABLE gone (x)", rows=[(1, "x")])
    new = made(
        tmp_path / "2", "CREATE TABLE t (id INTEGER PRIMARY KEY, b, a)", "CREATE INDEX i ON t (b)", rows=[(1, 2, "y")]
    )
    found = diff(old, new)
    assert [line.split(" is ")[0] for line in found.schema] == ["index i", "table gone", "table t"]
    assert found.tables[0].columns == ("id", "a")
    assert found.tables[0].examples == (RowDifference((1, "x"), (1, "y")),)
    assert "- (1, 'x')  + (1, 'y')" in str(found)
    assert not found.is_empty
    assert diff(old, old).is_empty


def test_a_name_may_be_anything(tmp_path: Path) -> None:
    table = 'CREATE TABLE "my ""t""?" ("a""b" PRIMARY KEY, "%?#")'
    path = made(tmp_path / "odd ?#%20.db", table)
    assert [each.table for each in diff(path, path).tables] == ['my "t"?']
