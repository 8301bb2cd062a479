"""Delivery of events to a sink: at least once, in order by station, however often either side stops.

Events are read from the history's database by a position that is kept there too. A page of them is first
marked as attempted, then delivered, stations side by side and each in its order, then the position moves on.
So after any end of the process what may have been delivered is delivered again, and says so.
"""

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

from app.database import clock
from app.database.engine import Database, DatabaseUnavailable
from app.feed import log
from app.feed.feed import Feed
from app.feed.log import Event, Wanted
from app.sinks import positions
from app.sinks.positions import Position

logger = logging.getLogger("flowgauge.sinks")

T = TypeVar("T")

_PAGE: Final = 64
_STATIONS_AT_ONCE: Final = 8
FIRST_DELAY: Final = 0.5  # seconds
LONGEST_DELAY: Final = 60.0
_DATABASE_SECONDS: Final = 5.0
# A position that only passed over what is not wanted is not worth a transaction each time.
_UNWANTED: Final = 1000
# What is under way at the end gets so many seconds.
_CLOSE_SECONDS: Final = 5.0


class Undelivered(Exception):  # noqa: N818  (a state)
    """An attempt has failed.

    Args:
        reason: for people, without secrets.
        reached: whether the event may have arrived all the same.
        counts: whether it is one of the attempts after which an event is given up; when the receiver cannot
            be reached at all, waiting is better.
        final: whether it is given up at once.
        wait: seconds that the receiver has asked for.
    """

    def __init__(
        self,
        reason: str,
        *,
        reached: bool = False,
        counts: bool = False,
        final: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reached = reached
        self.counts = counts
        self.final = final
        self.wait = wait


class Sink(Protocol):
    """Where events are delivered to.

    Attributes:
        name: its own, for its position, its failed deliveries and metrics.
        wanted: which events.
        attempts: that count, after which an event is given up.
    """

    name: str
    wanted: Wanted
    attempts: int

    async def open(self) -> None:
        """Begin; what it needs may be out of reach."""

    async def close(self) -> None:
        """End."""

    @property
    def is_ready(self) -> bool:
        """Whether an attempt makes sense."""

    async def ready(self) -> None:
        """Wait until it does."""

    async def deliver(self, event: Event, redelivered: bool) -> None:
        """Deliver an event; when this returns, the receiver has it.

        Args:
            event: one that is wanted.
            redelivered: whether it may have been delivered before.

        Raises:
            Undelivered: this attempt has failed.
        """


class Delivery:
    """Delivers to one sink.

    Args:
        sink: where to.
        database: of the history.
        feed: says when there is something new.
    """

    def __init__(self, sink: Sink, database: Database, feed: Feed) -> None:
        self.sink = sink
        self._database = database
        self._feed = feed
        self._position = Position(0, 0)
        self._kept = 0
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # For monitoring.
        self.counts: Counter[str] = Counter(sent=0, retried=0, failed=0, lost=0)
        self.failure: str | None = None
        self._is_stuck = False  # before it comes to the sink: the events cannot be read or counted

    @property
    def failing(self) -> bool:
        """Whether nothing can be delivered at present."""
        return self._is_stuck or self.failure is not None or not self.sink.is_ready

    @property
    def lag(self) -> int:
        """Events behind the newest one, wanted or not."""
        return max(0, self._feed.position - self._position.number)

    async def open(self) -> None:
        """Begin where an earlier process has ended.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        self._position = await self._write(lambda connection: positions.begin(connection, self.sink.name))
        self._kept = self._position.number
        await self.sink.open()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Finish what is under way, as far as seconds suffice; the rest is for the next start."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.sink.close()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                page, passed = await asyncio.to_thread(self._read)
                if page:
                    await self._deliver_page(page)
                else:
                    self._position = Position(passed, max(passed, self._position.attempted))
                    if passed - self._kept >= _UNWANTED:
                        await self._keep()
            except DatabaseUnavailable as error:
                self._is_stuck = True
                logger.warning("%s: the events cannot be read or counted: %s", self.sink.name, error)
                await self._pause(_DATABASE_SECONDS)
            except Exception:  # whatever it was, there is a next attempt
                self._is_stuck = True
                logger.exception("%s: delivery has failed", self.sink.name)
                await self._pause(LONGEST_DELAY)
            else:
                self._is_stuck = False
                if not page:
                    await self._or_stop(self._feed.wait(passed))

    def _read(self) -> tuple[list[Event], int]:
        """The next events that are wanted; and where there are none, up to which number."""
        at = self._position.number
        with self._database.read() as connection:
            gone = log.forgotten(connection)
            newest = log.newest(connection)
            page = log.read(connection, max(at, gone), _PAGE, self.sink.wanted)
        if at < gone:
            self.counts["lost"] += gone - at
            self._position = Position(gone, max(gone, self._position.attempted))
            logger.error(
                "%s was behind by more than is kept: up to %d events are lost to it; FLOWGAUGE_EVENTS_KEPT "
                "sets how many are kept",
                self.sink.name,
                gone - at,
            )
        return page, max(newest, at)

    async def _deliver_page(self, page: Sequence[Event]) -> None:
        again = self._position.attempted
        if page[-1].number > again:
            self._position = Position(self._position.number, page[-1].number)
            try:
                await self._keep()
            except BaseException:
                self._position = Position(self._position.number, again)
                raise
        stations: dict[str | None, list[Event]] = {}
        for event in page:
            stations.setdefault(event.station, []).append(event)
        done: set[int] = set()
        room = asyncio.Semaphore(_STATIONS_AT_ONCE)

        async def deliver(events: Sequence[Event]) -> None:
            async with room:
                for event in events:
                    if not await self._deliver(event, event.number <= again):
                        return
                    done.add(event.number)

        try:
            async with asyncio.TaskGroup() as group:
                for events in stations.values():
                    group.create_task(deliver(events))
        finally:
            finished = list(itertools.takewhile(lambda event: event.number in done, page))
            if finished:
                self._position = Position(finished[-1].number, self._position.attempted)
                await self._keep()

    async def _deliver(self, event: Event, again: bool) -> bool:
        """Deliver an event or give it up; False where the end has come before either."""
        attempts, delay = 0, 0.0
        while True:
            if not self.sink.is_ready:
                await self._or_stop(self.sink.ready())
            if self._stopping.is_set():
                return False
            try:
                await self._attempt(event, again)
            except Undelivered as error:
                attempts += error.counts
                if error.final or attempts >= self.sink.attempts:
                    await self._give_up(event, str(error))
                    return True
                again = again or error.reached
                self.counts["retried"] += 1
                if self.failure is None:
                    logger.warning("%s: %s; it is tried again", self.sink.name, error)
                self.failure = str(error)
                delay = min(max(2 * delay, FIRST_DELAY), LONGEST_DELAY)
                # Jitter, so that servers which lost the same receiver do not come back all at once.
                wait = delay * random.uniform(0.5, 1.0)  # noqa: S311
                await self._pause(wait if error.wait is None else max(error.wait, FIRST_DELAY))
            else:
                self.counts["sent"] += 1
                if self.failure is not None:
                    logger.info("%s: delivered again", self.sink.name)
                    self.failure = None
                return True

    async def _attempt(self, event: Event, again: bool) -> None:
        try:
            await self.sink.deliver(event, again)
        except Undelivered:
            raise
        except Exception as error:  # other events go on
            logger.exception("%s: an attempt has failed", self.sink.name)
            said = f"an error that was not foreseen: {type(error).__name__}"
            raise Undelivered(said, reached=True, counts=True) from error

    async def _give_up(self, event: Event, reason: str) -> None:
        failed = positions.FailedDelivery(self.sink.name, event.number, clock.now_ms(), reason)
        await self._write(lambda connection: positions.give_up(connection, failed))
        self.counts["failed"] += 1
        self.failure = reason  # for who watches, until something is delivered again
        logger.error("%s: event %d is given up: %s", self.sink.name, event.number, reason)

    async def _keep(self) -> None:
        position = self._position
        await self._write(lambda connection: positions.move(connection, self.sink.name, position))
        self._kept = position.number

    async def _write(self, act: Callable[[Connection], T]) -> T:
        def write() -> T:
            with self._database.write() as connection:
                return act(connection)

        return await asyncio.to_thread(write)

    async def _pause(self, seconds: float) -> None:
        await self._or_stop(asyncio.sleep(seconds))

    async def _or_stop(self, awaitable: Coroutine[Any, Any, None]) -> None:
        """Wait for something, but no longer than until the end."""
        tasks = [asyncio.create_task(awaitable), asyncio.create_task(_true(self._stopping))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


async def _true(event: asyncio.Event) -> None:
    await event.wait()
