"""Tests of entities in a line: `given(Counter).when(Increment(2)).then(Incremented(2), state=Count(2))`.

And tests of what runs on an engine: with a clock that is moved, a store that fails when it is told to, and waiting
without time.
"""

from ego.testing._clock import Clock
from ego.testing._engine import Engine
from ego.testing._engine_of_a_test import Engines
from ego.testing._errors import ArrangementError, BehaviorError
from ego.testing._faults import Faults, Held
from ego.testing._faulty_store import FaultyStore
from ego.testing._gate import Gate
from ego.testing._given import Given, given
from ego.testing._outcome import Outcome

__all__ = [
    "ArrangementError",
    "BehaviorError",
    "Clock",
    "Engine",
    "Engines",
    "Faults",
    "FaultyStore",
    "Gate",
    "Given",
    "Held",
    "Outcome",
    "given",
]
