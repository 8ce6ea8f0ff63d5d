"""What reads a store: projections, policies for handlers that fail, read models, and what two versions differ in."""

from ego._projections._dead_letters import DeadLetter
from ego._projections._diff import ReadModelDifference
from ego._projections._management import Projection, Projections, ProjectionStatus
from ego._projections._policies import Fail, Policy, RetryAndFail, RetryAndSkip, Skip
from ego._projections._read_model import SQLiteReadModel
from ego._projections._transaction import ReadModelTransaction

__all__ = [
    "DeadLetter",
    "Fail",
    "Policy",
    "Projection",
    "ProjectionStatus",
    "Projections",
    "ReadModelDifference",
    "ReadModelTransaction",
    "RetryAndFail",
    "RetryAndSkip",
    "SQLiteReadModel",
    "Skip",
]
