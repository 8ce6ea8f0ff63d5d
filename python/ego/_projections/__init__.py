"""What reads a store: policies for handlers that fail, read models, and moving from one version of them to the next."""

from ego._projections._diff import ReadModelDifference
from ego._projections._policies import Fail, RetryAndFail, RetryAndSkip, Skip
from ego._projections._read_model import SQLiteReadModel
from ego._projections._transaction import ReadModelTransaction

__all__ = [
    "Fail",
    "ReadModelDifference",
    "ReadModelTransaction",
    "RetryAndFail",
    "RetryAndSkip",
    "SQLiteReadModel",
    "Skip",
]
