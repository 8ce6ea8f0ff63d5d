"""What is said about a command is stored with its events, and goes on to what its handler sends."""

from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from egotest.bank import Account, Balance, Deposit, Deposited, Do, Look
from egotest.people import Person, Profile, Rename
from egotest.running import Run, turns

import ego
from ego import _native

Store = ego.LogStore | ego.MemoryStore

TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "rojo=00f067aa0ba902b7",
}
CAP = 16 << 10


class Pay(ego.Command):
    cents: int
    how: str = ""


class Payer(ego.EventSourcedBehavior[Pay, Deposited, Balance]):
    """Hands on what it is paid, in the way that the command says."""

    kind = "payer"
    engine: ego.Engine

    def initial_state(self) -> Balance:
        return Balance()

    def handle_command(self, command: Pay, state: Balance) -> Any:
        match command.how:
            case "told":
                self.next().tell(Pay(command.cents))
            case "told later":
                return self.hand_on(command, wait=False)
            case "sent":
                return self.hand_on(command, wait=True)
            case _:
                pass
        return Deposited(command.cents)

    async def hand_on(self, command: Pay, wait: bool) -> Deposited:
        await turns()
        if wait:
            await self.next().send(Pay(command.cents), metadata={"hop": "2", "mine": "next"})
        else:
            self.next().tell(Pay(command.cents))
        return Deposited(command.cents)

    def handle_event(self, event: Deposited, state: Balance) -> Balance:
        return Balance(state.amount + event.amount)

    def next(self) -> ego.EntityRef[Pay, Balance]:
        return Payer.engine.get(Payer, self.id + "+")


def engine(store: Store) -> ego.Engine:
    return ego.Engine("bank", store, behaviors=[Account, Person, Payer])


def stored(path: Path) -> dict[str, list[dict[str, str]]]:
    """The metadata of everything that is stored, by entity."""
    journal = _native.Store.open_log(
        path, shards=128, segment_bytes=64 << 20, max_unit_bytes=1 << 20, max_queue_bytes=64 << 20, clock=None
    )
    try:
        found: dict[str, list[dict[str, str]]] = {}
        for row in journal.read_from(1, 1_000):
            found.setdefault(row[1], []).append(row[8])
        return found
    finally:
        journal.close()


async def told(bank: ego.Engine, entity_id: str) -> None:
    """Waits until what was told to the entity has arrived."""
    while (await bank.get(Payer, entity_id).state())[1] == 0:
        await turns()


def test_metadata_is_stored_with_every_event_and_state_of_the_command(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(1), metadata={"user": "ann", "é": "日本 💶", "": ""})
            await account.send(Do(lambda _: [Deposited(1), Deposited(2)]), metadata=TRACE)
            await account.send(Deposit(1))
            await bank.send_command("a", Deposit(1), metadata={"correlation_id": "c", "causation_id": "d"})
            await account.send(Deposit(1), metadata={})
            assert await bank.get(Person, "p").send(Rename("x"), metadata=TRACE) == (Profile("x"), 1)
            await account.send(Deposit(1), metadata=TRACE, command_id="id", expected_revision=6)

    run(main())
    found = stored(tmp_path / "s")
    assert found["a"] == [
        {"user": "ann", "é": "日本 💶", "": ""},
        TRACE,
        TRACE,
        {},
        {"correlation_id": "c", "causation_id": "d"},
        {},
        TRACE,
    ]
    assert found["p"] == [TRACE]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_handler_is_shown_the_metadata(store: Store, run: Run, asynchronous: bool) -> None:
    seen: list[Mapping[str, str]] = []

    async def look_later() -> None:
        await turns()
        seen.append(ego.context().metadata)

    def look(_: Account) -> Any:
        seen.append(ego.context().metadata)
        seen[-1]["changed"] = "by the handler"  # type: ignore[index]
        return look_later() if asynchronous else None

    async def main() -> None:
        async with engine(store) as bank:
            await bank.get(Account, "a").send(Do(look), metadata=TRACE)
            await bank.get(Account, "a").send(Do(look))

    run(main())
    assert [{k: v for k, v in each.items() if k != "changed"} for each in seen] == (
        [TRACE, TRACE, {}, {}] if asynchronous else [TRACE, {}]
    )


@pytest.mark.parametrize("how", ["sent", "told", "told later"])
@pytest.mark.parametrize("command_id", [None, "order 7"])
def test_what_a_handler_sends_inherits_the_metadata_and_names_its_cause(
    tmp_path: Path, run: Run, how: str, command_id: str | None
) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:
            Payer.engine = bank
            await bank.get(Payer, "a").send(Pay(5, how), metadata={**TRACE, "mine": "first"}, command_id=command_id)
            await told(bank, "a+")

    run(main())
    found = stored(tmp_path / "s")
    assert found["a"] == [{**TRACE, "mine": "first"}]
    cause = {} if command_id is None else {"correlation_id": command_id, "causation_id": command_id}
    given = {"hop": "2", "mine": "next"} if how == "sent" else {"mine": "first"}
    assert found["a+"] == [{**TRACE, **cause, **given}]


def test_a_chain_keeps_the_first_id_and_names_the_last(tmp_path: Path, run: Run) -> None:
    class Link(Account):
        kind = "link"

    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:

            async def second(_: Account) -> Deposited:
                await bank.get(Account, "c").send(Deposit(1))
                return Deposited(1)

            async def first(_: Account) -> Deposited:
                await bank.get(Payer, "b").send(Pay(1), command_id="second")
                await bank.get(Link, "l").send(Do(second))
                return Deposited(1)

            await bank.get(Payer, "p").send(Pay(1), command_id="first", metadata={"correlation_id": "above"})
            await bank.get(Account, "a").send(Do(first), metadata={"correlation_id": "above", "causation_id": "x"})

    run(main())
    found = stored(tmp_path / "s")
    # Without an id of their own, commands hand on whose cause they are.
    assert found["p"] == [{"correlation_id": "above"}]
    for entity in "abc":
        assert found[entity] == [{"correlation_id": "above", "causation_id": "x"}]


def test_a_correlation_that_is_there_stays(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:
            Payer.engine = bank
            await bank.get(Payer, "a").send(
                Pay(5, "told"), command_id="order 7", metadata={"correlation_id": "web 1", "causation_id": "click"}
            )
            await told(bank, "a+")

    run(main())
    assert stored(tmp_path / "s")["a+"] == [{"correlation_id": "web 1", "causation_id": "order 7"}]


def test_what_is_sent_outside_of_a_handler_inherits_nothing(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:
            await bank.get(Account, "a").send(Deposit(1), metadata=TRACE)
            await bank.get(Account, "b").send(Deposit(1))
            bank.get(Account, "c").tell(Deposit(1))
            await bank.get(Account, "c").state()

    run(main())
    found = stored(tmp_path / "s")
    assert (found["b"], found["c"]) == ([{}], [{}])


@pytest.mark.parametrize("mapping", [MappingProxyType(TRACE), UserDict(TRACE)], ids=["proxy", "UserDict"])
def test_any_mapping_is_metadata(tmp_path: Path, run: Run, mapping: Mapping[str, str]) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:
            await bank.get(Account, "a").send(Deposit(1), metadata=mapping)

    run(main())
    assert stored(tmp_path / "s")["a"] == [TRACE]


RUBBISH: list[Any] = [
    5,
    "user=ann",
    [("user", "ann")],
    b"",
    True,
    object(),
    {"user": 5},
    {"user": None},
    {5: "ann"},
    {"user": b"ann"},
    {b"user": "ann"},
    {"user": "\ud800"},
    {"\ud800": "ann"},
]


@pytest.mark.parametrize("metadata", RUBBISH, ids=[str(number) for number in range(len(RUBBISH))])
def test_metadata_that_is_none(store: Store, run: Run, metadata: Any) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(1))
            for call in (
                lambda: account.send(Deposit(1), metadata=metadata),
                lambda: bank.send_command("a", Deposit(1), metadata=metadata),
            ):
                with pytest.raises(TypeError, match="metadata is a mapping of str to str"):
                    call()
            assert await account.send(Deposit(1)) == (Balance(2), 2)

    run(main())


def test_metadata_has_a_cap(store: Store, run: Run) -> None:
    fits = {"k": "x" * (CAP - len(msgspec.msgpack.encode({"k": "x" * 1_000})) + 1_000)}
    assert len(msgspec.msgpack.encode(fits)) == CAP

    async def main() -> None:
        async with engine(store) as bank:
            account = bank.get(Account, "a")
            for number, metadata in enumerate((fits, {str(n): "" for n in range(2_000)}), 1):
                assert await account.send(Deposit(1), metadata=metadata) == (Balance(number), number)
            for metadata in ({"k": fits["k"] + "x"}, {"k": "x" * 70_000}, {str(n): "" for n in range(70_000)}):
                with pytest.raises(ego.MessageTooLargeError, match=r"account/a.*metadata") as caught:
                    _ = account.send(Deposit(1), metadata=metadata)
                facts = caught.value
                assert (facts.kind, facts.entity_id, facts.cap) == ("account", "a", CAP)
                assert facts.size > CAP
            assert await account.send(Deposit(1)) == (Balance(3), 3)

    run(main())


@pytest.mark.parametrize("how", ["sent", "told"])
def test_what_is_inherited_counts_to_the_cap(store: Store, run: Run, how: str) -> None:
    async def main() -> None:
        async with engine(store) as bank:
            Payer.engine = bank
            metadata = {"k": "x" * (CAP - 100)}
            with pytest.raises(ego.MessageTooLargeError, match=r"payer/a\+.*metadata"):
                await bank.get(Payer, "a").send(Pay(5, how), metadata=metadata, command_id="y" * 255)
            assert await bank.get(Payer, "a").state() == (Balance(0), 0)
            assert await bank.get(Payer, "a").send(Pay(5), metadata=metadata) == (Balance(5), 1)
            assert await bank.get(Payer, "a+").state() == (Balance(0), 0)

    run(main())


def test_a_command_without_events_stores_no_metadata(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        async with engine(ego.LogStore(tmp_path / "s")) as bank:
            await bank.get(Account, "a").send(Look(), metadata=TRACE)
            await bank.get(Account, "a").send(Look(), metadata=TRACE, command_id="x")

    run(main())
    assert stored(tmp_path / "s") == {}
