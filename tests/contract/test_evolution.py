"""What was stored under an older shape of its type is read as the newer one."""

from typing import Any

import pytest
from egotest.running import Run

import ego
from ego import _upcasts

Store = ego.LogStore | ego.MemoryStore


class Sell(ego.Command):
    item: str


class Sales(ego.State):
    items: tuple[str, ...] = ()
    cents: int = 0


@ego.stored("shop.sold")
class SoldBefore(ego.Event):
    item: str
    euros: int


@ego.stored("shop.sold")
class SoldWithGift(ego.Event):
    item: str
    euros: int
    gift: str = "card"


@ego.stored("shop.sold", version=3)
class SoldNow(ego.Event):
    item: str
    cents: int
    currency: str


def in_cents(old: dict[str, Any]) -> dict[str, Any]:
    return {"item": old["item"], "cents": old["euros"] * 100}


def in_euros(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "currency": "EUR"}


Shop = ego.EventSourcedBehavior[Sell, Any, Sales]


class Before(ego.EventSourcedBehavior[Sell, SoldBefore, Sales]):
    kind = "shop"

    def initial_state(self) -> Sales:
        return Sales()

    def handle_command(self, command: Sell, state: Sales) -> SoldBefore:
        return SoldBefore(command.item, 5)

    def handle_event(self, event: SoldBefore, state: Sales) -> Sales:
        return Sales((*state.items, event.item), state.cents + event.euros * 100)


class WithGift(ego.EventSourcedBehavior[Sell, SoldWithGift, Sales]):
    kind = "shop"

    def initial_state(self) -> Sales:
        return Sales()

    def handle_command(self, command: Sell, state: Sales) -> SoldWithGift:
        return SoldWithGift(command.item, 6, "ribbon")

    def handle_event(self, event: SoldWithGift, state: Sales) -> Sales:
        return Sales((*state.items, event.item, event.gift), state.cents + event.euros * 100)


class Now(ego.EventSourcedBehavior[Sell, SoldNow, Sales]):
    kind = "shop"

    def initial_state(self) -> Sales:
        return Sales()

    def handle_command(self, command: Sell, state: Sales) -> SoldNow:
        return SoldNow(command.item, 750, "EUR")

    def handle_event(self, event: SoldNow, state: Sales) -> Sales:
        return Sales((*state.items, event.item), state.cents + event.cents)


async def sell(store: Store, behavior: type[Shop], item: str) -> tuple[Sales, int]:
    async with ego.Engine("shop", store, behaviors=[behavior]) as engine:
        return await engine.get(behavior, "main street").send(Sell(item))


def test_a_new_field_with_a_default_reads_what_has_none(run: Run, store: Store) -> None:
    assert run(sell(store, Before, "tea")) == (Sales(("tea",), 500), 1)
    assert run(sell(store, WithGift, "cup")) == (Sales(("tea", "card", "cup", "ribbon"), 1100), 2)
    assert run(sell(store, Before, "pot")) == (Sales(("tea", "cup", "pot"), 1600), 3)


def test_upcasts_read_every_older_version(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run(sell(store, Before, "tea"))
    monkeypatch.setattr(_upcasts, "_functions", {})
    ego.upcast("shop.sold", from_version=1)(in_cents)
    ego.upcast("shop.sold", from_version=2)(in_euros)
    assert run(sell(store, Now, "cup")) == (Sales(("tea", "cup"), 1250), 2)
    assert run(sell(store, Now, "pot")) == (Sales(("tea", "cup", "pot"), 2000), 3)
