"""The native half of ego: what the Python layer is built on, and nothing a user imports.

`Answer`, the awaitable that `EntityRef.send` returns, has no name here: it is a `Coroutine`, and an asyncio future as
well, so that it can be awaited, gathered, shielded, cancelled, and wrapped in a task.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from os import PathLike
from types import GenericAlias
from typing import Any, Generic, Literal, TypeVar, final

from ego._expected import Expected

__all__ = [
    "Clock",
    "Context",
    "Engine",
    "EntityRef",
    "KindSpec",
    "Store",
    "__profile__",
    "__version__",
    "after_fork_in_child",
    "call",
    "call_state",
    "check_may_block",
    "context",
]

_C = TypeVar("_C", contravariant=True)
_S = TypeVar("_S", covariant=True)
_Cmd = TypeVar("_Cmd")
_St = TypeVar("_St")

__version__: str
__profile__: Literal["debug", "release"]

def context() -> Context: ...
def after_fork_in_child() -> None: ...
def check_may_block() -> None: ...
def call(
    entity: EntityRef[_Cmd, _St],
    command: _Cmd,
    timeout: float | None,
    expected_revision: int | Expected | None,
    command_id: str | None,
    metadata: Mapping[str, str] | None,
) -> tuple[_St, int]: ...
def call_state(entity: EntityRef[Any, _St], timeout: float | None) -> tuple[_St, int]: ...

@final
class Context:
    @property
    def entity_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def command_id(self) -> str | None: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    def now(self) -> datetime: ...

@final
class Clock:
    def __new__(cls) -> Clock: ...
    def advance(self, nanos: int) -> None: ...
    def wall_nanos(self) -> int: ...

@final
class Store:
    @staticmethod
    def memory(clock: Clock | None) -> Store: ...
    @staticmethod
    def open_log(
        path: str | PathLike[str],
        *,
        shards: int,
        segment_bytes: int,
        max_unit_bytes: int,
        clock: Clock | None,
    ) -> Store: ...
    def close(self) -> None: ...
    def opened(self) -> dict[str, object]: ...
    def stats(self) -> dict[str, int]: ...
    def read_from(self, position: int, limit: int) -> list[tuple[str, str, int, int, int, str, int, bytes]]: ...
    @property
    def poisoned(self) -> str | None: ...

@final
class KindSpec:
    def __new__(
        cls,
        *,
        name: str,
        behavior: type,
        is_durable_state: bool,
        create: Callable[[str, Any], Any],
        handle_command: Callable[..., Any],
        handle_event: Callable[[Any, Any, Any], Any] | None,
        initial_state: Callable[[Any], Any],
        state_types: tuple[type, ...],
        command_types: tuple[type, ...] | None,
        stored_names: dict[type, tuple[str, int]],
        decoders: dict[tuple[str, int], Callable[[bytes], Any]],
        encode: Callable[[Any], bytes],
        fingerprint: Callable[[Any], bytes],
        keep_command_ids: int,
        keep_command_ids_for: float,
        passivate_after: float | None,
    ) -> KindSpec: ...
    @property
    def name(self) -> str: ...
    @property
    def behavior(self) -> type: ...

@final
class Engine:
    def __new__(cls, name: str, *, mailbox_capacity: int, clock: Clock | None) -> Engine: ...
    def register(self, spec: KindSpec, number: int | None) -> int: ...
    def start(self, store: Store, states: Store | None, event_loop: asyncio.AbstractEventLoop) -> None: ...
    def refuse_outside(self) -> None: ...
    def drained(self) -> Awaitable[None]: ...
    def finish(self) -> dict[str, int]: ...
    def ref(self, kind: int, entity_id: str) -> EntityRef[Any, Any]: ...
    def declare(self, kind: int, entity_id: str, behavior: object, passivate_after: float | None) -> bool: ...
    def undeclare(self, kind: int, entity_id: str, behavior: object) -> None: ...
    def is_resident(self, kind: int, entity_id: str) -> bool: ...
    def look(self) -> None: ...
    def is_live(self, kind: int, entity_id: str) -> bool: ...
    def stored_kinds(self, entity_id: str) -> list[str]: ...
    def stats(self) -> dict[str, int]: ...
    @property
    def started(self) -> bool: ...
    @property
    def name(self) -> str: ...

@final
class EntityRef(Generic[_C, _S]):
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    def send(
        self,
        command: _C,
        /,
        *,
        timeout: float | None = 5.0,
        expected_revision: int | Expected | None = None,
        command_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, tuple[_S, int]]: ...
    def tell(self, command: _C, /) -> None: ...
    def state(self, *, timeout: float | None = 5.0) -> Coroutine[Any, Any, tuple[_S, int]]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    @classmethod
    def __class_getitem__(cls, key: object) -> GenericAlias: ...
