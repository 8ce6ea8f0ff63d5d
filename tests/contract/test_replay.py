"""A long history comes back as it was lived, and what does not fit it is named by its revision."""

import asyncio
from typing import Any

import msgspec
import pytest
from egotest.bank import Account, AccountEvent, Balance, Deposit, Deposited, Look, Withdraw
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore
LONG = 1_000
"""Events: more than are read at a time."""
LIVED = Balance(LONG // 2 * 10 - (LONG // 2 - 1) * 9 + LONG)


class Halt(BaseException):
    pass


class Moody(Account):
    """Takes every event but the deposit of `LONG`, which stands in the last stretch of the history."""

    def handle_event(self, event: AccountEvent, state: Balance) -> Balance:
        return self.mood(state) if event == Deposited(LONG) else super().handle_event(event, state)

    def mood(self, state: Balance) -> Any:
        raise NotImplementedError


class Note(ego.Command):
    text: msgspec.Raw


class NoteTaken(ego.Event):
    text: msgspec.Raw


class Taken(ego.State):
    notes: tuple[msgspec.Raw, ...] = ()


class Notes(ego.EventSourcedBehavior[Note, NoteTaken, Taken]):
    def initial_state(self) -> Taken:
        return Taken()

    def handle_command(self, command: Note, state: Taken) -> NoteTaken:
        return NoteTaken(command.text)

    def handle_event(self, event: NoteTaken, state: Taken) -> Taken:
        return Taken((*state.notes, event.text))


async def live_long(store: Store) -> None:
    """Ten for each nine that are taken out, until the last deposit."""
    async with ego.Engine("bank", store, behaviors=[Account]) as bank:
        account = bank.get(Account, "a")
        sent = [account.send(Deposit(10) if number % 2 else Withdraw(9), timeout=None) for number in range(1, LONG)]
        for answer in sent:
            await answer
        assert await account.send(Deposit(LONG)) == (LIVED, LONG)


def test_a_long_history_of_several_types_comes_back(run: Run, store: Store) -> None:
    async def main() -> None:
        await live_long(store)
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            account = bank.get(Account, "a")
            assert await account.state() == (LIVED, LONG)
            assert await account.send(Deposit(1)) == (Balance(LIVED.amount + 1), LONG + 1)

    run(main())


def test_the_event_that_does_not_fold_is_named_wherever_it_stands(run: Run, store: Store) -> None:
    class Raising(Moody):
        def mood(self, state: Balance) -> Any:
            raise ZeroDivisionError("not today")

    async def main() -> None:
        await live_long(store)
        async with ego.Engine("bank", store, behaviors=[Raising]) as bank:
            with pytest.raises(ego.ReplayError, match=f"account/a: .* stored event {LONG}$") as caught:
                await bank.get(Raising, "a").state()
            assert caught.value.revision == LONG
            assert isinstance(caught.value.__cause__, ZeroDivisionError)

    run(main())


def test_a_fold_that_gives_no_state_is_named_too(run: Run, store: Store) -> None:
    class Forgetful(Moody):
        def mood(self, state: Balance) -> Any:
            return None

    async def main() -> None:
        await live_long(store)
        async with ego.Engine("bank", store, behaviors=[Forgetful]) as bank:
            with pytest.raises(ego.ReplayError) as caught:
                await bank.get(Forgetful, "a").state()
            assert caught.value.revision == LONG
            assert isinstance(caught.value.__cause__, ego.HandlerResultError)

    run(main())


def test_what_is_no_exception_stays_what_it_is_on_replay(run: Run, store: Store) -> None:
    class Halting(Moody):
        def mood(self, state: Balance) -> Any:
            raise Halt

    async def main() -> None:
        await live_long(store)
        async with ego.Engine("bank", store, behaviors=[Halting]) as bank:
            for command in (Look(), Deposit(1)):
                with pytest.raises(Halt):
                    await bank.get(Halting, "a").send(command)

    run(main())


def test_a_payload_that_a_decoder_keeps_stays_what_it_was(store: Store, run: Run) -> None:
    """Raw fields hold on to the bytes that they were decoded from."""

    async def main() -> None:
        notes = [msgspec.Raw(msgspec.msgpack.encode("x" * (number % 40))) for number in range(600)]
        async with ego.Engine("notes", store, behaviors=[Notes]) as engine:
            await asyncio.gather(*(engine.get(Notes, "n").send(Note(note)) for note in notes))
        async with ego.Engine("notes", store, behaviors=[Notes]) as engine:
            state, revision = await engine.get(Notes, "n").state()
            assert ([bytes(note) for note in state.notes], revision) == ([bytes(note) for note in notes], 600)

    run(main())
