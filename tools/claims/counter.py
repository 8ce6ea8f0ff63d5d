"""The entity that claims are checked with."""

from __future__ import annotations

import ego


class Add(ego.Command):
    by: int = 1


class Added(ego.Event):
    by: int


class Sum(ego.State):
    value: int = 0


class Counter(ego.EventSourcedBehavior[Add, Added, Sum]):
    def initial_state(self) -> Sum:
        return Sum()

    def handle_command(self, command: Add, state: Sum, /) -> Added:
        return Added(command.by)

    def handle_event(self, event: Added, state: Sum, /) -> Sum:
        return Sum(state.value + event.by)
