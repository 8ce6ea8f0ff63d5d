"""Every sabotage still finds the line that it breaks; whether a test notices it is for `make sabotage`."""

import pytest
from sabotage import REPOSITORY, SABOTAGES, Sabotage


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=[each.name for each in SABOTAGES])
def test_the_line_to_break_is_there_exactly_once(sabotage: Sabotage) -> None:
    for file, before, after in sabotage.edits:
        assert (REPOSITORY / file).read_text().count(before) == 1
        assert before != after
