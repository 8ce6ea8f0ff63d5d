"""Whatever is wrong is refused at once, by an error that says what and where; the entity works afterwards."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from egotest.bank import Account, AccountEvent, Balance, Deposit, Deposited, Do, Look, Noted, Withdrawn
from egotest.running import Run

import ego

Store = ego.LogStore | ego.MemoryStore
Scenario = Callable[[ego.Engine, ego.EntityRef[Any, Balance]], Coroutine[Any, Any, None]]


def check(run: Run, store: Store, scenario: Scenario) -> None:
    """Runs the scenario on an account of 5; afterwards it must have 5, and take 1 more, also after a restart."""

    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            account = bank.get(Account, "a")
            await account.send(Deposit(5))
            await scenario(bank, account)
            assert await account.state() == (Balance(5), 1)
            assert await account.send(Deposit(1)) == (Balance(6), 2)

    async def again() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            assert await bank.get(Account, "a").state() == (Balance(6), 2)

    run(main())
    run(again())


IDS = [
    ("", ego.UndefinedEntityError),
    ("x" * 256, ego.InvalidEntityIdError),
    ("é" * 128, ego.InvalidEntityIdError),
    ("a\nb", ego.InvalidEntityIdError),
    ("a\0b", ego.InvalidEntityIdError),
    ("a\x7f", ego.InvalidEntityIdError),
    ("a\x85", ego.InvalidEntityIdError),
    ("\ud800", ego.InvalidEntityIdError),
]


@pytest.mark.parametrize(("entity_id", "error"), IDS)
def test_an_id_that_is_none(run: Run, store: Store, entity_id: str, error: type[ego.EntityError]) -> None:
    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(error) as by_get:
            bank.get(Account, entity_id)
        with pytest.raises(error) as by_entity:
            await bank.entity(Account(entity_id))
        with pytest.raises(error) as by_id:
            await bank.send_command(entity_id, Deposit(1))
        for caught in (by_get, by_entity, by_id):
            assert isinstance(caught.value, ValueError)
            assert caught.value.entity_id == entity_id

    check(run, store, scenario)


@pytest.mark.parametrize("entity_id", ["", "a\n"])
def test_an_id_that_is_none_without_any_kind(run: Run, store: Store, entity_id: str) -> None:
    async def main() -> None:
        async with ego.Engine("bank", store) as bank:
            with pytest.raises((ego.UndefinedEntityError, ego.InvalidEntityIdError)):
                _ = bank.send_command(entity_id, Deposit(1))

    run(main())


@pytest.mark.parametrize("entity_id", [None, 5, b"a", ["a"]])
def test_an_id_that_is_no_str(run: Run, store: Store, entity_id: Any) -> None:
    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(ego.InvalidEntityIdError):
            bank.get(Account, entity_id)
        with pytest.raises(ego.InvalidEntityIdError):
            await bank.entity(Account(entity_id))
        with pytest.raises(ego.InvalidEntityIdError):
            _ = bank.send_command(entity_id, Deposit(1))

    check(run, store, scenario)


@pytest.mark.parametrize("entity_id", ["x" * 255, "é" * 127, "a b", "日本", "💶", "a/b", "..", "%s{}"])
def test_ids_that_are_fine(run: Run, store: Store, entity_id: str) -> None:
    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        assert await bank.get(Account, entity_id).send(Deposit(1)) == (Balance(1), 1)
        assert bank.get(Account, entity_id).id == entity_id

    check(run, store, scenario)


def test_an_unknown_id(run: Run, store: Store) -> None:
    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(ego.EntityNotFoundError, match="'nobody' was neither declared") as caught:
            _ = bank.send_command("nobody", Deposit(1))
        assert caught.value.entity_id == "nobody"
        assert isinstance(caught.value, LookupError)

    check(run, store, scenario)


@pytest.mark.parametrize("command", [object(), None, 5, "Deposit", Deposited(1), Deposit])
def test_a_command_of_no_declared_type(run: Run, store: Store, command: Any) -> None:
    async def scenario(bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        def by_id(each: Any) -> object:
            return bank.send_command("a", each)

        sends: list[Callable[[Any], object]] = [account.send, account.tell, by_id]
        for send in sends:
            with pytest.raises(ego.UnhandledCommandError) as caught:
                send(command)
            assert (caught.value.kind, caught.value.entity_id) == ("account", "a")
            assert isinstance(caught.value, TypeError)

    check(run, store, scenario)


class Unknown(ego.Event):
    pass


class SpecialDeposited(Deposited):
    pass


RUBBISH: list[Any] = [
    5,
    "Deposited",
    b"",
    True,
    object(),
    {},
    {"amount": 1},
    {Deposited(1)},
    Deposited,
    Unknown(),
    SpecialDeposited(1),
    Balance(1),
    [Unknown()],
    [Deposited(1), Unknown()],
    [Deposited(1), None],
    [[Deposited(1)]],
    (Deposited(1), 5),
    (each for each in [Deposited(1)]),
    type("MyList", (list,), {})([Deposited(1)]),
]


async def give(value: object) -> object:
    return value


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("rubbish", RUBBISH, ids=[str(number) for number in range(len(RUBBISH))])
def test_a_handler_that_returns_rubbish(run: Run, store: Store, rubbish: Any, later: bool) -> None:
    async def scenario(_bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(ego.HandlerResultError, match="account/a") as caught:
            await account.send(Do(lambda _: give(rubbish) if later else rubbish))
        assert (caught.value.kind, caught.value.entity_id) == ("account", "a")
        assert isinstance(caught.value, TypeError)

    check(run, store, scenario)


def test_an_event_that_cannot_be_encoded(run: Run, store: Store) -> None:
    async def scenario(_bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        for events in (Noted(object()), [Deposited(1), Noted(object())], Noted(2**70), Noted("\ud800")):

            def emit(_account: Account, events: Any = events) -> Any:
                return events

            with pytest.raises(ego.CodecError, match=r"account/a.*Noted") as caught:
                await account.send(Do(emit))
            assert caught.value.__cause__ is not None
            assert (caught.value.kind, caught.value.entity_id) == ("account", "a")

    check(run, store, scenario)


class Boom(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("no"), Boom(), ego.EgoError("mine"), TimeoutError()])
@pytest.mark.parametrize("later", [False, True])
def test_a_handler_that_raises_anything_is_answered_at_once(
    run: Run, store: Store, error: BaseException, later: bool
) -> None:
    """Defects 10 and 11 of eGo: a panic costs the caller the whole timeout, and errors lose their type."""

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    def fail(_account: Account) -> Any:
        if later:
            return fail_later()
        raise error

    async def scenario(_bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(type(error)) as caught:
            await account.send(Do(fail), timeout=None)
        assert caught.value is error

    check(run, store, scenario)


def test_a_handler_that_raises_stop_iteration_is_answered(run: Run, store: Store) -> None:
    def fail(_account: Account) -> Any:
        raise StopIteration("enough")

    async def scenario(_bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(RuntimeError) as caught:
            await account.send(Do(fail), timeout=None)
        assert isinstance(caught.value.__cause__, StopIteration)

    check(run, store, scenario)


def test_a_handler_that_is_cancelled_is_answered(run: Run, store: Store) -> None:
    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    def raise_it(_account: Account) -> None:
        raise asyncio.CancelledError

    async def scenario(_bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        actions: list[Callable[[Account], Any]] = [lambda _: cancel_myself(), raise_it]
        for action in actions:
            with pytest.raises(asyncio.CancelledError):
                await account.send(Do(action), timeout=None)

    check(run, store, scenario)


def test_a_handler_that_calls_its_own_entity(run: Run, store: Store) -> None:
    async def scenario(bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        async def call_back() -> None:
            await account.send(Look(), timeout=None)

        actions: list[Callable[[Account], Any]] = [
            lambda _: call_back(),
            lambda _: account.send(Look()),
            lambda _: bank.send_command("a", Look()),
        ]
        for action in actions:
            with pytest.raises(ego.DeadlockError, match="account/a") as caught:
                await account.send(Do(action), timeout=None)
            assert caught.value.chain == ("account/a", "account/a")

    check(run, store, scenario)


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.1, float("nan"), True, "5", object()])
def test_a_timeout_that_is_none(run: Run, store: Store, timeout: Any) -> None:
    """Defect 18 of eGo: a zero interval crashes the process."""

    async def scenario(bank: ego.Engine, account: ego.EntityRef[Any, Balance]) -> None:
        for call in (
            lambda: account.send(Deposit(1), timeout=timeout),
            lambda: account.state(timeout=timeout),
            lambda: bank.send_command("a", Deposit(1), timeout=timeout),
        ):
            with pytest.raises(ValueError, match="timeout"):
                call()
        with pytest.raises(ValueError, match="timeout must"):
            await bank.stop(timeout=timeout)
        assert bank.started

    check(run, store, scenario)


class Rotten(ego.EventSourcedBehavior[Look, Deposited, Balance]):
    """Gives states that are none."""

    initial: Any = Balance()
    folded: Any = Balance()

    def initial_state(self) -> Any:
        return self.initial

    def handle_command(self, command: Look, state: Balance) -> Deposited:
        return Deposited(1)

    def handle_event(self, event: Deposited, state: Balance) -> Any:
        return self.folded


@pytest.mark.parametrize("method", ["initial_state", "handle_event"])
@pytest.mark.parametrize("state", [None, 5, Balance, Deposited(1)])
def test_a_state_of_no_declared_type(run: Run, store: Store, method: str, state: Any) -> None:
    attribute = {"initial_state": "initial", "handle_event": "folded"}[method]
    rotten: type[Rotten] = type("Rotten", (Rotten,), {attribute: state, "kind": "rotten"})

    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        ref = bank.get(rotten, "r")
        for _ in range(2):
            with pytest.raises(ego.HandlerResultError, match=rf"rotten/r.*{method}"):
                await ref.send(Look())

    check(run, store, scenario)


def test_a_behavior_without_its_id(run: Run, store: Store) -> None:
    class Forgetful(Rotten):
        def __init__(self, entity_id: str) -> None:
            self.name = entity_id

    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(ego.HandlerResultError, match="super"):
            await bank.get(Forgetful, "f").send(Look())
        with pytest.raises(ego.ConfigError, match="super"):
            await bank.entity(Forgetful("f"))

    check(run, store, scenario)


def test_an_object_that_is_no_behavior(run: Run, store: Store) -> None:
    nothing: Any = object()

    async def scenario(bank: ego.Engine, _account: ego.EntityRef[Any, Balance]) -> None:
        with pytest.raises(ego.ConfigError, match="behavior must be"):
            await bank.entity(nothing)
        with pytest.raises(ego.ConfigError, match="behavior must be"):
            bank.get(nothing, "a")

    check(run, store, scenario)


def test_a_unit_over_the_cap(run: Run, tmp_path: Any) -> None:
    class Note(ego.Event):
        text: str

    class Notes(ego.State):
        count: int = 0

    class Take(ego.Command):
        texts: tuple[str, ...]

    class Book(ego.EventSourcedBehavior[Take, Note, Notes]):
        def initial_state(self) -> Notes:
            return Notes()

        def handle_command(self, command: Take, state: Notes) -> list[Note]:
            return [Note(text) for text in command.texts]

        def handle_event(self, event: Note, state: Notes) -> Notes:
            return Notes(state.count + 1)

    async def main() -> None:
        async with ego.Engine("notes", ego.LogStore(tmp_path / "notes.ego", max_unit_bytes=2000)) as engine:
            book = engine.get(Book, "b")
            assert await book.send(Take(("x" * 1000,))) == (Notes(1), 1)
            for texts in (("x" * 2000,), ("x" * 1200, "x" * 1200)):
                with pytest.raises(ego.MessageTooLargeError, match=r"Book/b.*max_unit_bytes") as caught:
                    await book.send(Take(texts))
                assert caught.value.cap == 2000
                assert caught.value.size > 2000
                assert (caught.value.kind, caught.value.entity_id) == ("Book", "b")
            assert await book.send(Take(("x" * 1000,))) == (Notes(2), 2)

    run(main())


def test_a_stored_event_that_no_type_is_declared_for(run: Run, store: Store) -> None:
    class Fewer(ego.EventSourcedBehavior[Look, Withdrawn, Balance]):
        kind = "account"

        def initial_state(self) -> Balance:
            return Balance()

        def handle_command(self, command: Look, state: Balance) -> None:
            return None

        def handle_event(self, event: Withdrawn, state: Balance) -> Balance:
            return state

    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            await bank.get(Account, "a").send(Deposit(5))
        async with ego.Engine("bank", store, behaviors=[Fewer]) as bank:
            for _ in range(2):
                with pytest.raises(ego.UnknownEventError, match=r"account/a.*Deposited") as caught:
                    await bank.get(Fewer, "a").send(Look())
                assert (caught.value.name, caught.value.version, caught.value.revision) == ("Deposited", 1, 1)
            assert await bank.get(Fewer, "other").send(Look()) == (Balance(0), 0)

    run(main())


def test_a_stored_event_that_does_not_decode(run: Run, store: Store) -> None:
    @ego.stored("Deposited")
    class Other(ego.Event):
        amount: str

    class Changed(ego.EventSourcedBehavior[Look, Other, Balance]):
        kind = "account"

        def initial_state(self) -> Balance:
            return Balance()

        def handle_command(self, command: Look, state: Balance) -> None:
            return None

        def handle_event(self, event: Other, state: Balance) -> Balance:
            return state

    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            await bank.get(Account, "a").send(Deposit(5))
        async with ego.Engine("bank", store, behaviors=[Changed]) as bank:
            with pytest.raises(ego.CodecError, match=r"account/a") as caught:
                await bank.get(Changed, "a").send(Look())
            assert isinstance(caught.value.__cause__, msgspec.ValidationError)

    run(main())


def test_a_stored_event_that_does_not_fold(run: Run, store: Store) -> None:
    class Stricter(Account):
        def handle_event(self, event: AccountEvent, state: Balance) -> Balance:
            if event == Deposited(7):
                raise ZeroDivisionError("seven")
            return super().handle_event(event, state)

    async def main() -> None:
        async with ego.Engine("bank", store, behaviors=[Account]) as bank:
            for amount in (5, 7, 9):
                await bank.get(Account, "a").send(Deposit(amount))
        async with ego.Engine("bank", store, behaviors=[Stricter]) as bank:
            with pytest.raises(ego.ReplayError, match="account/a") as caught:
                await bank.get(Stricter, "a").send(Look())
            assert (caught.value.kind, caught.value.entity_id, caught.value.revision) == ("account", "a", 2)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)

    run(main())
