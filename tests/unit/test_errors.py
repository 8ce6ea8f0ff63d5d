"""The error tree."""

import inspect
import pickle
import re

import pytest

import ego
from ego import _errors

EGO_ERRORS = {name: getattr(_errors, name) for name in _errors.__all__}


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Class name -> (parent, builtin) as the module's docstring draws it."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+Error)(.*)$", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        builtin = re.search(r"\b(\w+Error)\b", found[3].split("  the ")[0])
        above[depth:] = [found[2]]
        tree[found[2]] = (above[depth - 1] if depth else None, builtin[1] if builtin else None)
    return tree


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = drawn_tree()
    assert set(drawn) == set(EGO_ERRORS)
    for name, (parent, builtin) in drawn.items():
        cls = EGO_ERRORS[name]
        assert cls.__bases__[0] is (EGO_ERRORS[parent] if parent else Exception)
        assert builtin is None or issubclass(cls, getattr(__import__("builtins"), builtin))


def test_every_error_is_public() -> None:
    assert set(EGO_ERRORS) <= set(ego.__all__)
    defined = {name for name, cls in inspect.getmembers(_errors, inspect.isclass) if cls.__module__ == _errors.__name__}
    assert defined == set(EGO_ERRORS)


@pytest.mark.parametrize("name", sorted(EGO_ERRORS))
def test_the_facts_survive_pickling(name: str) -> None:
    error = EGO_ERRORS[name]("what happened", kind="account", entity_id="a", path="p", pid=7)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.kind, again.entity_id, again.path, again.pid) == ("what happened", "account", "a", "p", 7)


def test_facts_have_a_value_where_nobody_gave_one() -> None:
    assert ego.EntityError("?").entity_id == ""
    assert ego.StoreLockedError("?").pid is None
    assert ego.CommandTimeoutError("?").outcome == "unknown"


def test_an_operating_system_error_number_is_kept() -> None:
    assert ego.StorageError("no room", errno=28).errno == 28
    assert str(ego.StorageError("no room", errno=28)) == "no room"


def test_a_revision_conflict_says_what_was_asked_for_in_words() -> None:
    error = ego.RevisionConflictError("?", expected=ego.MUST_NOT_EXIST, actual=3)
    assert (error.expected, str(error.expected)) == (ego.MUST_NOT_EXIST, "must not exist")
    assert pickle.loads(pickle.dumps(error)).expected is ego.MUST_NOT_EXIST


def test_a_reused_command_id_is_a_conflict_and_a_bad_value() -> None:
    error = ego.CommandIdReusedError("?", entity_id="a-1", command_id="c-1")
    assert isinstance(error, ValueError)
    assert isinstance(error, ego.ConcurrencyError)
    assert (error.entity_id, error.command_id) == ("a-1", "c-1")
