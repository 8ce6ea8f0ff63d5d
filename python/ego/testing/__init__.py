"""Tests of entities in a line: `given(Counter).when(Increment(2)).then(Incremented(2), state=Count(2))`."""

from ego.testing._errors import ArrangementError, BehaviorError
from ego.testing._given import Given, given
from ego.testing._outcome import Outcome

__all__ = ["ArrangementError", "BehaviorError", "Given", "Outcome", "given"]
