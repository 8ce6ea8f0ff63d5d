"""What can go wrong, as one tree.

::

    EgoError
    ├── EngineNotStartedError      RuntimeError   the engine is not started, or not on this loop and thread
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
    │   └── RevisionConflictError                 the store holds another revision: expected, actual
    ├── CommandTimeoutError        TimeoutError   too late: outcome ("not_run" or "unknown"), kind, entity_id
    ├── MailboxFullError           RuntimeError   too many commands wait: capacity, kind, entity_id
    ├── MessageTooLargeError       ValueError     the events of one command are too large: size, cap, kind, entity_id
    ├── CodecError                 ValueError     an event cannot be encoded or decoded: kind, entity_id
    │   └── UnknownEventError      LookupError    no type is declared for a stored event: name, version, revision
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

__all__ = [
    "CodecError",
    "CommandTimeoutError",
    "ConcurrencyError",
    "ConfigError",
    "CorruptLogError",
    "DeadlockError",
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
]


class EgoError(Exception):
    """Everything that ego itself raises. The facts are attributes; nobody has to read the text."""

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        for name, fact in facts.items():
            setattr(self, name, fact)


class EngineNotStartedError(EgoError, RuntimeError):
    """The engine is not started, or is started on another event loop or thread than this call's."""


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
    """The entity's next event was to follow one revision, and the store holds another."""

    expected: int = 0
    actual: int = 0


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
    """The events of one command take more bytes than the store accepts at once. Nothing was stored."""

    size: int = 0
    cap: int = 0
    kind: str | None = None
    entity_id: str = ""


class CodecError(EgoError, ValueError):
    """An event cannot be encoded, or stored bytes cannot be decoded; the reason is the `__cause__`."""

    kind: str | None = None
    entity_id: str = ""


class UnknownEventError(CodecError, LookupError):
    """The store holds an event for which the behavior declares no type."""

    name: str = ""
    version: int = 0
    revision: int = 0


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
