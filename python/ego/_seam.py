"""The native half of ego, or one line that says why it is not there."""

import sys

try:
    from ego._native import Clock as NativeClock
    from ego._native import (
        Context,
        Cursor,
        EntityRef,
        EventEnvelope,
        Feed,
        KindSpec,
        StateEnvelope,
        __version__,
        after_fork_in_child,
        call,
        call_state,
        check_may_block,
        context,
        running,
    )
    from ego._native import Engine as NativeEngine
    from ego._native import Faults as NativeFaults
    from ego._native import Store as NativeStore
except ImportError as error:
    raise ImportError(
        f"ego runs on Linux only and needs its native module, built for this interpreter: {error} "
        f"(this is Python {sys.version_info.major}.{sys.version_info.minor} on {sys.platform})",
        name="ego._native",
    ) from None

__all__ = [
    "Context",
    "Cursor",
    "EntityRef",
    "EventEnvelope",
    "Feed",
    "KindSpec",
    "NativeClock",
    "NativeEngine",
    "NativeFaults",
    "NativeStore",
    "StateEnvelope",
    "__version__",
    "after_fork_in_child",
    "call",
    "call_state",
    "check_may_block",
    "context",
    "running",
]
