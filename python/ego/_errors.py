"""What can go wrong, as one tree.

::

    EgoError
    ├── EngineNotStartedError      RuntimeError   the engine is not started, or cannot be called from here
    ├── ConfigError                ValueError     an option, a behavior or a message type is not usable as given
    ├── EntityError                               kind, entity_id
    │   ├── UndefinedEntityError   ValueError     the id is empty
    │   ├── InvalidEntityIdError   ValueError     the id is not 1 to 255 bytes of UTF-8 without control characters
    │   ├── EntityNotFoundError    LookupError    the id was neither declared in this run nor stored
    │   ├── KindConflictError      LookupError    the id belongs to several kinds: kinds
    │   ├── UnhandledCommandError  TypeError      the command is of no declared type
    │   ├── HandlerResultError     TypeError      a handler returned what it may not
    │   ├── ReplayError            RuntimeError   the stored events do not fold: revision
    │   └── DeadlockError          RuntimeError   entities would wait for each other: chain
    ├── ConcurrencyError           RuntimeError   kind, entity_id
    │   ├── RevisionConflictError                 the entity has another revision: expected, actual
    │   ├── VersionError                          not the next version or not the same type: expected, actual
    │   └── CommandIdReusedError   ValueError     a command id came with another command before: command_id
    ├── CommandTimeoutError        TimeoutError   too late: outcome ("not_run" or "unknown"), kind, entity_id
    ├── MailboxFullError           RuntimeError   too many commands wait: capacity, kind, entity_id
    ├── MessageTooLargeError       ValueError     what one command stores is too large: size, cap, kind, entity_id
    ├── DurableStateStoreRequiredError RuntimeError  there is no store for durable states: kind, entity_id
    ├── CodecError                 ValueError     something cannot be encoded or decoded: kind, entity_id
    │   ├── UnknownEventError      LookupError    no type is declared for what is stored: name, version, revision
    │   ├── UnknownRejectionError  LookupError    no class is defined for a stored rejection: name, version
    │   └── UpcastError                           a stored payload cannot be brought up to date: name, version, revision
    ├── ProjectionError            RuntimeError   a projection cannot do it: projection
    └── StorageError               OSError        path
        ├── CorruptLogError                       stored bytes changed: offset, detail
        ├── StoreFormatError       ValueError     the path holds no store that this version reads
        ├── StoreFullError                        no room; nothing was written
        ├── StoreLockedError                      another process owns the store: pid
        ├── StorePoisonedError                    an earlier write failed, so no more are accepted: cause
        ├── ForkedStoreError                      opened before a fork and used after it: pid
        └── OutcomeUnknownError                   this write failed, it may or may not be stored: cause

The second column is the builtin that each also is. What the right column names after the colon are attributes. An
exception that a user's handler raises is not in here: it reaches the caller as itself.
"""

from typing import Literal

from ego._expected import Expected

__all__ = [
    "CodecError",
    "CommandIdReusedError",
    "CommandTimeoutError",
    "ConcurrencyError",
    "ConfigError",
    "CorruptLogError",
    "DeadlockError",
    "DurableStateStoreRequiredError",
    "EgoError",
    "EngineNotStartedError",
    "EntityError",
    "EntityNotFoundError",
    "ForkedStoreError",
    "HandlerResultError",
    "InvalidEntityIdError",
    "KindConflictError",
    "MailboxFullError",
    "MessageTooLargeError",
    "OutcomeUnknownError",
    "ProjectionError",
    "ReplayError",
    "RevisionConflictError",
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
]


class EgoError(Exception):
    """Everything that ego itself raises. The facts are attributes; nobody has to read the text."""

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        for name, fact in facts.items():
            setattr(self, name, fact)


class EngineNotStartedError(EgoError, RuntimeError):
    """The engine is not started, or cannot be called here: no event loop runs, or it would be blocked."""


class ConfigError(EgoError, ValueError):
    """An option, a behavior or a message type cannot be used as given."""

    option: str | None = None
    """The offending option, where there is one."""


class EntityError(EgoError):
    """Something about one entity."""

    kind: str | None = None
    entity_id: str = ""


class UndefinedEntityError(EntityError, ValueError):
    """The entity id is empty."""


class InvalidEntityIdError(EntityError, ValueError):
    """The entity id is not a `str` of 1 to 255 bytes of UTF-8 without control characters."""


class EntityNotFoundError(EntityError, LookupError):
    """The id was neither declared in this run nor is it stored."""


class KindConflictError(EntityError, LookupError):
    """The id belongs to entities of several kinds and the call does not say which."""

    kinds: tuple[str, ...] = ()


class UnhandledCommandError(EntityError, TypeError):
    """The command is of none of the types that the behavior declares. Nothing ran."""


class HandlerResultError(EntityError, TypeError):
    """A handler returned something it may not. Nothing was stored and the state is as before."""


class ReplayError(EntityError, RuntimeError):
    """`handle_event` raised on a stored event; its exception is the `__cause__`."""

    revision: int = 0
    """The revision of the event that could not be applied."""


class DeadlockError(EntityError, RuntimeError):
    """Entities would wait for each other for ever."""

    chain: tuple[str, ...] = ()
    """The entities as "kind/id", each waiting for the next; the last one is the first again."""


class ConcurrencyError(EgoError, RuntimeError):
    """Somebody else was faster."""

    kind: str | None = None
    entity_id: str = ""


class RevisionConflictError(ConcurrencyError):
    """The command was meant for another revision of the entity, or another writer was faster. Nothing was stored."""

    expected: int | Expected = 0
    """The revision that was asked for, `ego.MUST_EXIST` or `ego.MUST_NOT_EXIST`."""
    actual: int = 0


class VersionError(ConcurrencyError):
    """A durable state was to be followed by a version that is not the next, or by another type. Nothing was stored."""

    expected: int = 0
    """The version that would have been accepted: the entity's version and 1."""
    actual: int = 0
    """The version that `handle_command` returned."""
    expected_type: str = ""
    """The name of the state's type."""
    actual_type: str = ""
    """The name of the type of the state that `handle_command` returned."""


class CommandIdReusedError(ConcurrencyError, ValueError):
    """The command id belongs to another command of the entity. Nothing ran."""

    command_id: str = ""


class CommandTimeoutError(EgoError, TimeoutError):
    """There was no answer in time."""

    outcome: Literal["not_run", "unknown"] = "unknown"
    """`"not_run"`: it was still queued and never will run. `"unknown"`: it had begun and may be stored."""
    kind: str | None = None
    entity_id: str = ""


class MailboxFullError(EgoError, RuntimeError):
    """Too many commands of one entity are waiting. Nothing ran; send it again later."""

    capacity: int = 0
    kind: str | None = None
    entity_id: str = ""


class MessageTooLargeError(EgoError, ValueError):
    """What one command stores takes more bytes than the store accepts at once. Nothing was stored."""

    size: int = 0
    cap: int = 0
    kind: str | None = None
    entity_id: str = ""


class DurableStateStoreRequiredError(EgoError, RuntimeError):
    """The engine has no store that keeps durable states; give it one with `state_store=`."""

    kind: str | None = None
    entity_id: str = ""


class CodecError(EgoError, ValueError):
    """A value cannot be encoded, or stored bytes cannot be decoded; the reason is the `__cause__`."""

    kind: str | None = None
    entity_id: str = ""


class UnknownEventError(CodecError, LookupError):
    """The store holds an event or a durable state for which the behavior declares no type."""

    name: str = ""
    version: int = 0
    revision: int = 0


class UnknownRejectionError(CodecError, LookupError):
    """The store holds the rejection of a command, and no rejection of that name and version is defined."""

    name: str = ""
    version: int = 0


class UpcastError(CodecError):
    """A payload of an older version cannot be brought up to date; where a function raised, that is the `__cause__`."""

    name: str = ""
    version: int = 0
    """The version from which it was to be brought to the next."""
    revision: int = 0


class ProjectionError(EgoError, RuntimeError):
    """A projection cannot do what it was asked, or its offset cannot be used."""

    projection: str | None = None


class StorageError(EgoError, OSError):
    """The store could not do it."""

    path: str | None = None


class CorruptLogError(StorageError):
    """Stored bytes are not what was written. Nothing was changed and nothing is served from there on."""

    offset: int = 0
    detail: str = ""


class StoreFormatError(StorageError, ValueError):
    """The path does not hold a store that this version can read."""


class StoreFullError(StorageError):
    """There is no room on the disk. Nothing of this command was written; work goes on when there is room."""


class StoreLockedError(StorageError):
    """Another process owns the store."""

    pid: int | None = None


class StorePoisonedError(StorageError):
    """An earlier write failed, so no more are accepted. Stop and start the engine to go on from what the disk holds."""

    cause: str = ""


class ForkedStoreError(StorageError):
    """The store was opened before a fork and is used in the child. Open it in the child instead."""

    pid: int = 0


class OutcomeUnknownError(StorageError):
    """The write of this command failed: it may or may not be stored."""

    cause: str = ""
