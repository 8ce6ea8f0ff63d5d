"""Where the events are. A store object only holds options; the engine that is started with it opens and closes it."""

from ego._stores.log import LogStore
from ego._stores.memory import MemoryStore

__all__ = ["LogStore", "MemoryStore"]
