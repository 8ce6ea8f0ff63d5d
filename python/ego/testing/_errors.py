"""What the kit raises besides a plain `AssertionError`, which says that an expectation was not met."""


class ArrangementError(ValueError):
    """The test itself cannot be right: what it gives or expects is nothing that the kind could ever hold."""


class BehaviorError(AssertionError):
    """The behavior breaks a rule of all behaviors: a value that cannot be stored, a change in place, an impure fold."""
