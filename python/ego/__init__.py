"""Event sourcing: commands become durable events, events become state."""

import typing as _typing

from ego._behaviors import DurableStateBehavior, EventSourcedBehavior
from ego._engine import Engine, StopReport
from ego._errors import (
    CodecError,
    CommandIdReusedError,
    CommandTimeoutError,
    ConcurrencyError,
    ConfigError,
    CorruptLogError,
    DeadlockError,
    DurableStateStoreRequiredError,
    EgoError,
    EngineNotStartedError,
    EntityError,
    EntityNotFoundError,
    ForkedStoreError,
    HandlerResultError,
    InvalidEntityIdError,
    KindConflictError,
    MailboxFullError,
    MessageTooLargeError,
    OutcomeUnknownError,
    ProjectionError,
    ReplayError,
    RevisionConflictError,
    StorageError,
    StoreFormatError,
    StoreFullError,
    StoreLockedError,
    StorePoisonedError,
    UndefinedEntityError,
    UnhandledCommandError,
    UnknownEventError,
    UnknownRejectionError,
    UpcastError,
    VersionError,
)
from ego._expected import MUST_EXIST, MUST_NOT_EXIST, Expected
from ego._kinds import Kind
from ego._messages import Command, Event, State, stored
from ego._projections import (
    DeadLetter,
    Fail,
    Projection,
    ProjectionStatus,
    ReadModelDifference,
    ReadModelTransaction,
    RetryAndFail,
    RetryAndSkip,
    Skip,
    SQLiteReadModel,
)
from ego._rejections import Rejection
from ego._seam import Context, Cursor, EntityRef, EventEnvelope, StateEnvelope, __version__, context
from ego._stores import LogStore, MemoryStore
from ego._upcasts import upcast

if _typing.TYPE_CHECKING:
    from types import ModuleType

    from ego import sync as sync
else:

    def __getattr__(name: str) -> "ModuleType":
        """`ego.sync`, once somebody asks for it: it needs asyncio, which takes long to import."""
        if name != "sync":
            raise AttributeError(f"module 'ego' has no attribute {name!r}")
        import importlib

        return importlib.import_module("ego.sync")


__all__ = [
    "CodecError",
    "Command",
    "CommandIdReusedError",
    "CommandTimeoutError",
    "ConcurrencyError",
    "ConfigError",
    "Context",
    "CorruptLogError",
    "Cursor",
    "DeadLetter",
    "DeadlockError",
    "DurableStateBehavior",
    "DurableStateStoreRequiredError",
    "EgoError",
    "Engine",
    "EngineNotStartedError",
    "EntityError",
    "EntityNotFoundError",
    "EntityRef",
    "Event",
    "EventEnvelope",
    "EventSourcedBehavior",
    "Expected",
    "Fail",
    "ForkedStoreError",
    "HandlerResultError",
    "InvalidEntityIdError",
    "Kind",
    "KindConflictError",
    "LogStore",
    "MUST_EXIST",
    "MUST_NOT_EXIST",
    "MailboxFullError",
    "MemoryStore",
    "MessageTooLargeError",
    "OutcomeUnknownError",
    "Projection",
    "ProjectionError",
    "ProjectionStatus",
    "ReadModelDifference",
    "ReadModelTransaction",
    "Rejection",
    "ReplayError",
    "RetryAndFail",
    "RetryAndSkip",
    "RevisionConflictError",
    "SQLiteReadModel",
    "Skip",
    "State",
    "StateEnvelope",
    "StopReport",
    "StorageError",
    "StoreFormatError",
    "StoreFullError",
    "StoreLockedError",
    "StorePoisonedError",
    "UndefinedEntityError",
    "UnhandledCommandError",
    "UnknownEventError",
    "UnknownRejectionError",
    "UpcastError",
    "VersionError",
    "__version__",
    "context",
    "stored",
    "upcast",
]
