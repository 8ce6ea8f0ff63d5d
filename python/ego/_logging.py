"""The logger `ego`, looked up when it is used: importing ego sets up nothing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def logger() -> "logging.Logger":
    """The stdlib logger of this package."""
    import logging

    return logging.getLogger("ego")


def log_opened(engine: str, opened: Mapping[str, object]) -> None:
    """Says what was found when the store was opened."""
    torn = opened.get("torn")
    if torn is not None:
        logger().warning("engine %s: dropped a torn end that nobody was told about: %s", engine, torn)
    logger().info("engine %s: started, store %s", engine, dict(opened))
