"""Profiles: durable states, and commands that return whatever a test wants."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import ego


class Rename(ego.Command):
    name: str


class Act(ego.Command):
    """Returns what the function makes of the version and the state, an awaitable included."""

    action: Callable[[int, Any], Any]


class Profile(ego.State):
    name: str = ""
    extra: Any = None


class Retired(ego.State):
    name: str


class NameTaken(ego.Rejection):
    name: str


class Person(ego.DurableStateBehavior[Rename | Act, Profile | Retired]):
    kind = "person"

    def initial_state(self) -> Profile | Retired:
        return Profile()

    def handle_command(
        self, command: Rename | Act, version: int, state: Profile | Retired
    ) -> tuple[Profile | Retired, int] | Awaitable[Any] | None:
        match command:
            case Rename(name):
                return Profile(name), version + 1
            case Act(action):
                return cast("Awaitable[Any]", action(version, state))
