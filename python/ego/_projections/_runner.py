"""One projection at work: pages of envelopes go to the handler, and the offset follows.

One task on the engine's loop. Per entity, and in all, events are handled in order of position, one after the other. The
offset never passes an event that was neither handled nor stored as a dead letter. A failure of the store is not the
handler's: it is waited out, longer each time, and handling goes on from the offset.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, cast

from ego._errors import EngineNotStartedError, ProjectionError, StorageError
from ego._logging import logger
from ego._projections import _offset
from ego._projections._dead_letters import DeadLetter, DeadLetters, described
from ego._projections._handler import Handler
from ego._projections._policies import Policy
from ego._projections._read_model import SQLiteReadModel
from ego._projections._transaction import TransactionLostError
from ego._seam import EventEnvelope, Feed, NativeEngine

Envelope = EventEnvelope[Any]
Phase = Literal["running", "retrying", "failed", "stopped"]

PAGE: Final = 250
"""Envelopes taken at a time. More make the collector look at each of them."""
SLICE: Final = 0.001
"""Seconds after which a handler that never waits lets others have the loop."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 10.0
"""Seconds between two tries after a failure of the store: twice as long each time, up to the longest."""


class Runner:
    """Reads the store for one handler."""

    def __init__(
        self,
        native: NativeEngine,
        name: str,
        handler: Handler,
        *,
        events: list[str] | None,
        policy: Policy,
        batch_size: int,
        into: SQLiteReadModel | None,
    ) -> None:
        self.name = name
        self.phase: Phase = "running"
        self.error: BaseException | None = None
        self.letters = DeadLetters(native, name)
        self._native = native
        self._handler = handler
        self._events = events
        self._policy = policy
        self._page = min(batch_size, PAGE)
        self._into = into
        self._done = 0
        self._saved = 0
        self._page_time: datetime | None = None
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._slice_end = 0.0
        self._retries: list[tuple[list[DeadLetter], asyncio.Future[int]]] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def begin(self, start: _offset.Start) -> None:
        """Finds out where to start, and starts."""
        if self._into is not None:
            await self._into.open(self.name, self._native.store_id())
        try:
            position = await self._stored()
            if position is None:
                position = await _offset.resolve(self._native, self.name, start)
                await self._store_now(position)
            self._done = self._saved = _offset.check_reached(self._native, self.name, position)
            await self.letters.load()
        except BaseException:
            await self._close_model()
            raise
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"ego projection {self.name}")

    async def end(self, timeout: float | None = None) -> bool:
        """Lets the handler finish what it is at, then stores the offset; whether that was in time."""
        self.leave()
        task = self._task
        if task is None:
            return True
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
        return bool(done)

    @property
    def position(self) -> int:
        """Everything up to here was handled, passed over, or is of no interest to it."""
        feed = self._feed
        return max(self._done, feed.position) if feed is not None and self._page_time is None else self._done

    def last_position(self) -> int:
        """Where the store ends."""
        return self._native.last_position()

    def lag(self) -> tuple[int, float]:
        """How many positions and seconds it is behind."""
        behind = max(0, self.last_position() - self.position)
        oldest = self._page_time
        seconds = 0.0 if oldest is None or not behind else (datetime.now(UTC) - oldest).total_seconds()
        return behind, max(0.0, seconds)

    async def reach(self, position: int) -> None:
        """Waits until everything up to a position was handled or passed over."""
        while self.position < position:
            if self._task is None or self._task.done() or self.phase in ("failed", "stopped"):
                raise ProjectionError(
                    f"projection {self.name!r} is {self.phase} at {self.position}, before {position}",
                    projection=self.name,
                )
            feed = self._feed
            if feed is not None and self._page_time is None and not feed.pending():
                # It passes over what is of no interest, and wakes nobody for that.
                await asyncio.sleep(SLICE)
                continue
            moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(moved)
            await moved

    def _tell_that_it_moved(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def retry(self, letters: list[DeadLetter]) -> int:
        """Calls the handler with dead letters again, between two pages; how many it has taken."""
        if self._task is None or self._task.done():
            raise ProjectionError(f"projection {self.name!r} does not run", projection=self.name)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._retries.append((letters, answer))
        self._interrupt()
        return await answer

    def _interrupt(self) -> None:
        """Ends the feed, and with it the wait for more."""
        if self._feed is not None:
            # What it has passed over need not be looked at again.
            self._done = self.position
            self._feed.close()

    async def abandon(self) -> None:
        """Lets go of the read model of a projection of which the loop is gone."""
        await self._close_model()

    def leave(self) -> None:
        """Has it stop after the event that it is at."""
        self._leaving.set()
        self._interrupt()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            while not self._leaving.is_set():
                before = self._done
                try:
                    await self._work()
                except StorageError as error:
                    pause = FIRST_PAUSE if self._done > before else min(2 * pause, LONGEST_PAUSE)
                    logger().warning("projection %s: the store failed, next try in %s s: %s", self.name, pause, error)
                    self.phase, self.error = "retrying", error
                    await self._wait(pause)
                except EngineNotStartedError:
                    # The engine stops, and said so to the handler or to the feed.
                    break
            self._save()
        except (StorageError, EngineNotStartedError) as error:
            logger().warning("projection %s: its offset was not stored: %s", self.name, error)
        except BaseException as error:
            if self.phase != "failed" and not isinstance(error, asyncio.CancelledError):
                self._fail(error)
            raise
        finally:
            if self.phase != "failed":
                self.phase = "stopped"
            self._tell_that_it_moved()
            for _, answer in self._retries:
                if not answer.done():
                    answer.set_exception(self._stopped())
            await self._close_model()

    async def _work(self) -> None:
        """Follows the store until there is a reason to do something else."""
        if self._into is not None:
            self._done = self._saved = cast("int", await self._into.offset())
        await self._retry_letters()
        feed = self._feed = self._native.feed(
            self._done, events=self._events, kinds=None, entity=None, shard=None, states=False
        )
        self._slice_end = time.monotonic() + SLICE
        try:
            while not (self._leaving.is_set() or self._retries):
                page = cast("list[Envelope]", feed.take(self._page))
                if self.phase == "retrying":
                    self.phase = "running"
                if not page:
                    if self._waiting:
                        self._tell_that_it_moved()
                    if not await feed.ready():
                        return
                    self._slice_end = time.monotonic() + SLICE
                    continue
                self._page_time = page[0].time
                if not await self._handle(page):
                    return
                self._page_time = None
                self._save()
                if self._waiting:
                    self._tell_that_it_moved()
                await self._share()
        finally:
            self._page_time = None
            self._feed = None
            feed.close()

    async def _handle(self, page: list[Envelope]) -> bool:
        """Handles a page, in order; whether to go on after it."""
        if self._into is not None:
            return await self._handle_in_transaction(self._into, page)
        if self._policy.park_entity:
            return await self._one_by_one(page, None)
        if self._handler.takes_many:
            error = await self._attempt(partial(self._handler.call, page))
            if error is None:
                self._done = page[-1].position
                return True
            return await self._one_by_one(page, error if len(page) == 1 else None)
        call, clock, before = self._handler.call, time.monotonic, None
        for number, envelope in enumerate(page):
            try:
                result = call(envelope)
                if result is not None and inspect.isawaitable(result):
                    self._done = self._done if before is None else before.position
                    await result
            except BaseException as error:
                self._done = self._done if before is None else before.position
                self._check_is_the_handlers(error)
                return await self._one_by_one(page[number:], error)
            before = envelope
            if clock() >= self._slice_end:
                self._done = envelope.position
                await self._share()
                if self._leaving.is_set():
                    return False
        self._done = page[-1].position
        return True

    async def _one_by_one(self, page: Sequence[Envelope], error: BaseException | None) -> bool:
        """Handles each alone, the first after it failed with `error`; whether to go on after the page."""
        for envelope in page:
            if self._leaving.is_set():
                return False
            if self._policy.park_entity and self.letters.holds_back(envelope):
                await self.letters.add(envelope, None, 0)
            elif not await self._one(envelope, error):
                return False
            error = None
            if self._into is None:
                self._done = envelope.position
            else:
                await self._commit_if_behind(self._into, envelope.position)
            await self._share()
        return True

    async def _one(self, envelope: Envelope, error: BaseException | None) -> bool:
        """Handles one as the policy says; false where the projection is to stop."""
        attempts = 1
        if error is None:
            error = await self._attempt_alone(envelope)
        while error is not None and attempts < self._policy.attempts:
            self.phase, self.error = "retrying", error
            if await self._wait(self._policy.delay):
                return False
            attempts += 1
            error = await self._attempt_alone(envelope)
        if error is None:
            self.phase = "running"
            return True
        if self._leaving.is_set():
            # An engine that stops refuses what a handler sends: nothing is judged by that, and the event comes again.
            return False
        if self._policy.skips:
            self.phase, self.error = "running", error
            await self.letters.add(envelope, error, attempts)
            logger().warning(
                "projection %s: event %s is a dead letter after %d attempts: %s",
                self.name, envelope.id, attempts, described(error),
            )  # fmt: skip
            return True
        self._fail(error, envelope)
        return False

    async def _attempt_alone(self, envelope: Envelope) -> BaseException | None:
        given = [envelope] if self._handler.takes_many else envelope
        if self._into is None:
            return await self._attempt(partial(self._handler.call, given))
        batch = self._into.begin()
        try:
            transaction = batch.event()
            error = await self._attempt(partial(self._handler.call, given, transaction))
            if error is None:
                batch.keep()
                await batch.commit(max(self._done, envelope.position))
                self._done = self._saved = max(self._done, envelope.position)
            else:
                batch.undo()
        except TransactionLostError as lost:
            return lost
        finally:
            batch.abandon()
        return error

    async def _handle_in_transaction(self, model: SQLiteReadModel, page: list[Envelope]) -> bool:
        """One transaction for as many of a page as go through; whether to go on after it."""
        if self._policy.park_entity and len(self.letters):
            return await self._one_by_one(page, None)
        many = self._handler.takes_many
        for_each: list[Any] = [page] if many else list(page)
        batch, reached, failed = model.begin(), self._done, None
        try:
            for given in for_each:
                transaction = batch.event()
                failed = await self._attempt(partial(self._handler.call, given, transaction))
                if failed is not None:
                    batch.undo()
                    break
                batch.keep()
                reached = page[-1].position if many else given.position
                if time.monotonic() >= self._slice_end:
                    await self._share()
            if reached > self._done:
                await batch.commit(reached)
                self._done = self._saved = reached
        except TransactionLostError as lost:
            # What the page has written is gone as well: whose fault it is shows one by one.
            batch.abandon()
            self._done = self._saved = cast("int", await model.offset())
            return await self._one_by_one(page, lost if len(page) == 1 else None)
        finally:
            batch.abandon()
        if failed is None:
            return True
        rest = [envelope for envelope in page if envelope.position > self._done]
        return await self._one_by_one(rest, failed if not many or len(rest) == 1 else None)

    async def _commit_if_behind(self, model: SQLiteReadModel, position: int) -> None:
        if position > self._done:
            batch = model.begin()
            try:
                await batch.commit(position)
            finally:
                batch.abandon()
            self._done = self._saved = position

    async def _attempt(self, call: Callable[[], object]) -> BaseException | None:
        try:
            result = call()
            if result is not None and inspect.isawaitable(result):
                await cast("Awaitable[object]", result)
        except BaseException as error:
            self._check_is_the_handlers(error)
            return error
        return None

    def _check_is_the_handlers(self, error: BaseException) -> None:
        """Raises what is meant for this task or for the process."""
        task = asyncio.current_task()
        is_cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
        if is_cancelled or isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error

    async def _retry_letters(self) -> None:
        while self._retries:
            letters, answer = self._retries.pop(0)
            taken, held = 0, set[tuple[str, str]]()
            try:
                for letter in sorted(letters, key=lambda letter: letter.position):
                    if letter.entity in held or letter.position not in self.letters or self._leaving.is_set():
                        continue
                    envelope = await self.envelope(letter.position)
                    if self._policy.park_entity and self.letters.holds_back(envelope):
                        continue
                    error = await self._attempt_alone(envelope)
                    if error is None:
                        await self.letters.remove([letter])
                        taken += 1
                        continue
                    held.add(letter.entity)
                    if self._leaving.is_set():
                        continue
                    await self.letters.add(envelope, error, letter.attempts + 1)
            except BaseException as failure:
                if not answer.done():
                    answer.set_exception(self._stopped(failure))
                raise
            if not answer.done():
                answer.set_result(taken)

    async def envelope(self, position: int) -> Envelope:
        """The event at a position of the store."""
        feed = self._native.feed(position - 1, events=None, kinds=None, entity=None, shard=None, states=False)
        try:
            while not (found := feed.take(1)):
                if not await feed.ready():
                    raise self._stopped()
        finally:
            feed.close()
        return cast("Envelope", found[0])

    def _stopped(self, failure: BaseException | None = None) -> Exception:
        return failure if isinstance(failure, Exception) else EngineNotStartedError(f"projection {self.name!r} stopped")

    async def _stored(self) -> int | None:
        if self._into is not None:
            return await self._into.offset()
        return await _offset.read(self._native, self.name)

    async def _store_now(self, position: int) -> None:
        if self._into is not None:
            await self._into.begin().commit(position)
        else:
            await _offset.write(self._native, self.name, position, soon=True)

    def _save(self) -> None:
        """Stores the offset with the next batch of the store. That of a read model moves with its rows."""
        if self._done > self._saved and self._into is None:
            _offset.write(self._native, self.name, self._done, soon=False)
            self._saved = self._done

    async def _share(self) -> None:
        if time.monotonic() >= self._slice_end:
            await asyncio.sleep(0)
            self._slice_end = time.monotonic() + SLICE

    async def _wait(self, seconds: float) -> bool:
        """Waits; whether it is to leave."""
        try:
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        except TimeoutError:
            return False
        return True

    async def _close_model(self) -> None:
        if self._into is not None:
            await self._into.close()

    def _fail(self, error: BaseException, envelope: Envelope | None = None) -> None:
        self.phase, self.error = "failed", error
        at = "" if envelope is None else f" at event {envelope.id}, position {envelope.position}"
        logger().error("projection %s has stopped%s: %s", self.name, at, described(error), exc_info=error)
        self._leaving.set()
