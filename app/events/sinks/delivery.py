"""Delivery of events to a sink: at least once, in order by station, however often either side stops.

Events are read from the history's database by a position that is kept there too. A page of them is delivered,
stations side by side and each in its order, then the position moves on. So after any end of the process what
may have been delivered is delivered again, and says so: it is in the first page after the start.
"""

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from app.database.engine import Database, DatabaseUnavailable
from app.events import log
from app.events.feed import Feed
from app.events.log import NumberedEvent
from app.events.sinks import positions
from app.events.sinks.sink import DeliveryError, Sink

logger = logging.getLogger("flowgauge.sinks")

T = TypeVar("T")

_PAGE: Final = 64
_STATIONS_AT_ONCE: Final = 8
FIRST_DELAY: Final = 0.5  # seconds
LONGEST_DELAY: Final = 60.0
_RETRY_SECONDS: Final = 5.0
# A position that only passed over what is not wanted is not worth a transaction each time.
_UNWANTED: Final = 1000
# What is under way at the end gets so many seconds.
_CLOSE_SECONDS: Final = 5.0


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
        # All events up to the first have been delivered or given up, up to the second may have been.
        self._position = self._attempted = 0
        self._kept = 0  # the position in the database
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
        return max(0, self._feed.position - self._position)

    async def open(self) -> None:
        """Begin where an earlier process has ended.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        self._position = await self._write(lambda connection: positions.begin(connection, self.sink.name))
        self._kept = self._position
        self._attempted = self._feed.position
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
                if self._is_stuck:  # deliver nothing while positions cannot be kept
                    await self._keep()
                page, newest = await asyncio.to_thread(self._read)
                if page:
                    await self._deliver_page(page)
                else:
                    self._position = newest
                    if newest - self._kept >= _UNWANTED:
                        await self._keep()
            except Exception as error:  # whatever it was, there is a next attempt
                self._is_stuck = True
                is_known = isinstance(error, DatabaseUnavailable)
                said = "%s: the events cannot be read or counted: %s"
                logger.warning(said, self.sink.name, error, exc_info=not is_known)
                await self._pause(_RETRY_SECONDS)
            else:
                self._is_stuck = False
                if not page:
                    await self._or_stop(self._feed.wait(newest))

    def _read(self) -> tuple[list[NumberedEvent], int]:
        """The next events that are wanted, and the number of the newest of all."""
        with self._database.read() as connection:
            gone = log.last_deleted(connection)
            newest = log.newest_number(connection)
            page = log.read(connection, max(self._position, gone), _PAGE, self.sink.events)
        if (lost := gone - self._position) > 0:
            self.counts["lost"] += lost
            self._position = gone
            logger.error(
                "%s was behind by more than is kept: up to %d events are lost to it; FLOWGAUGE_EVENTS_KEPT "
                "sets how many are kept",
                self.sink.name,
                lost,
            )
        return page, max(newest, self._position)

    async def _deliver_page(self, page: Sequence[NumberedEvent]) -> None:
        again, self._attempted = self._attempted, page[-1].number
        stations: dict[str | None, list[NumberedEvent]] = {}
        for event in page:
            stations.setdefault(event.station, []).append(event)
        done: set[int] = set()
        room = asyncio.Semaphore(_STATIONS_AT_ONCE)

        async def deliver(events: Sequence[NumberedEvent]) -> None:
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
                self._position = finished[-1].number
                await self._keep()

    async def _deliver(self, event: NumberedEvent, again: bool) -> bool:
        """Deliver an event or give it up; False where the end has come before either."""
        attempts, delay = 0, 0.0
        while True:
            if not self.sink.is_ready:
                await self._or_stop(self.sink.wait_ready())
            if self._stopping.is_set():
                return False
            try:
                await self.sink.deliver(event, again)
            except Exception as caught:
                error = caught if isinstance(caught, DeliveryError) else self._unforeseen(caught)
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

    def _unforeseen(self, error: Exception) -> DeliveryError:
        """A failed attempt of its event alone: other events go on."""
        logger.error("%s: an attempt has failed", self.sink.name, exc_info=error)
        name = type(error).__name__
        return DeliveryError(f"an error that was not foreseen: {name}", reached=True, counts=True)

    async def _give_up(self, event: NumberedEvent, reason: str) -> None:
        await self._write(
            lambda connection: positions.give_up(connection, self.sink.name, event.number, reason)
        )
        self.counts["failed"] += 1
        self.failure = reason  # for who watches, until something is delivered again
        logger.error("%s: event %d is given up: %s", self.sink.name, event.number, reason)

    async def _keep(self) -> None:
        position = self._position
        await self._write(lambda connection: positions.move(connection, self.sink.name, position))
        self._kept = position

    async def _write(self, act: Callable[[Connection], T]) -> T:
        def write() -> T:
            with self._database.write() as connection:
                return act(connection)

        return await asyncio.to_thread(write)

    async def _pause(self, seconds: float) -> None:
        await self._or_stop(asyncio.sleep(seconds))

    async def _or_stop(self, awaitable: Coroutine[Any, Any, None]) -> None:
        """Wait for something, but no longer than until the end."""
        tasks = [asyncio.create_task(awaitable), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
