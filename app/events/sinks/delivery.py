"""Delivery of events to a sink: at least once, in order for each station.

Events are read from the database after a position that is stored there too. A page is delivered, stations in
parallel and each in order; then the position advances. After a restart, events that may have been delivered
before are in the first page: they are delivered again and marked as redelivered.
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
_MAX_STATIONS: Final = 8  # delivered in parallel
FIRST_DELAY: Final = 0.5  # seconds
MAX_DELAY: Final = 60.0
_RETRY_SECONDS: Final = 5.0
# Skipped events after which the position is stored: it is not worth a transaction each time.
_MAX_SKIPPED: Final = 1000
# Time for current deliveries at the stop.
_CLOSE_SECONDS: Final = 5.0


class Delivery:
    """Delivers events to one sink."""

    def __init__(self, sink: Sink, database: Database, feed: Feed) -> None:
        self.sink = sink
        self._database = database
        self._feed = feed
        # Events up to `_position` were delivered or given up; up to `_attempted`, they may have been
        # delivered.
        self._position = self._attempted = 0
        self._stored = 0  # the position in the database
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # For monitoring.
        self.counts: Counter[str] = Counter(sent=0, retried=0, failed=0, lost=0)
        self.failure: str | None = None
        self._is_stuck = False  # the events cannot be read, or the position cannot be stored

    @property
    def failing(self) -> bool:
        """True if nothing can be delivered at present."""
        return self._is_stuck or self.failure is not None or not self.sink.is_ready

    @property
    def lag(self) -> int:
        """Number of events behind the newest one, selected or not."""
        return max(0, self._feed.position - self._position)

    async def open(self) -> None:
        """Start where an earlier process, or another server, stopped.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        self._position, self._attempted = await self._write(
            lambda connection: (positions.begin(connection, self.sink.name), log.newest_number(connection))
        )
        self._stored = self._position
        await self.sink.open()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Finish current deliveries within a few seconds; the rest waits for the next start."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.sink.close()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._is_stuck:  # deliver nothing while the position cannot be stored
                    await self._store_position()
                page, newest = await asyncio.to_thread(self._read)
                if page:
                    await self._deliver_page(page)
                else:
                    self._position = newest
                    if newest - self._stored >= _MAX_SKIPPED:
                        await self._store_position()
            except Exception as error:  # any error is tried again
                self._is_stuck = True
                is_known = isinstance(error, DatabaseUnavailable)
                message = "%s: cannot read events or store the position; trying again: %s"
                logger.warning(message, self.sink.name, error, exc_info=not is_known)
                await self._pause(_RETRY_SECONDS)
            else:
                self._is_stuck = False
                if not page:
                    await self._or_stop(self._feed.wait(newest))

    def _read(self) -> tuple[list[NumberedEvent], int]:
        """Return the next selected events, and the number of the newest of all."""
        with self._database.read() as connection:
            deleted = log.last_deleted(connection)
            newest = log.newest_number(connection)
            page = log.read(connection, max(self._position, deleted), _PAGE, self.sink.events)
        if (lost := deleted - self._position) > 0:
            self.counts["lost"] += lost
            self._position = deleted
            logger.error(
                "%s fell behind the stored events: up to %d events are lost to it; set FLOWGAUGE_EVENTS_KEPT "
                "to keep more",
                self.sink.name,
                lost,
            )
        return page, max(newest, self._position)

    async def _deliver_page(self, page: Sequence[NumberedEvent]) -> None:
        attempted, self._attempted = self._attempted, page[-1].number
        stations: dict[str | None, list[NumberedEvent]] = {}
        for event in page:
            stations.setdefault(event.station, []).append(event)
        done: set[int] = set()
        semaphore = asyncio.Semaphore(_MAX_STATIONS)

        async def deliver(events: Sequence[NumberedEvent]) -> None:
            async with semaphore:
                for event in events:
                    if not await self._deliver(event, event.number <= attempted):
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
                await self._store_position()

    async def _deliver(self, event: NumberedEvent, redelivered: bool) -> bool:
        """Deliver an event or give it up; return False if the stop comes first."""
        attempts, delay = 0, 0.0
        while True:
            if not self.sink.is_ready:
                await self._or_stop(self.sink.wait_ready())
            if self._stopping.is_set():
                return False
            try:
                await self.sink.deliver(event, redelivered)
            except Exception as caught:
                error = caught if isinstance(caught, DeliveryError) else self._unexpected(caught)
                attempts += error.counts
                if error.final or attempts >= self.sink.attempts:
                    await self._give_up(event, str(error))
                    return True
                redelivered = redelivered or error.reached
                self.counts["retried"] += 1
                if self.failure is None:
                    logger.warning("%s: %s; trying again", self.sink.name, error)
                self.failure = str(error)
                delay = min(max(2 * delay, FIRST_DELAY), MAX_DELAY)
                # Jitter, so that servers that lost the same receiver do not retry together.
                wait = delay * random.uniform(0.5, 1.0)  # noqa: S311
                await self._pause(wait if error.wait is None else max(error.wait, FIRST_DELAY))
            else:
                self.counts["sent"] += 1
                if self.failure is not None:
                    logger.info("%s: delivered again", self.sink.name)
                    self.failure = None
                return True

    def _unexpected(self, error: Exception) -> DeliveryError:
        """Convert an unexpected error, so that it affects only its event."""
        logger.error("%s: an attempt failed", self.sink.name, exc_info=error)
        return DeliveryError(f"unexpected error: {type(error).__name__}", reached=True, counts=True)

    async def _give_up(self, event: NumberedEvent, reason: str) -> None:
        await self._write(
            lambda connection: positions.give_up(connection, self.sink.name, event.number, reason)
        )
        self.counts["failed"] += 1
        self.failure = reason  # for monitoring, until the next delivery
        logger.error("%s: event %d is given up: %s", self.sink.name, event.number, reason)

    async def _store_position(self) -> None:
        position = self._position
        await self._write(lambda connection: positions.move(connection, self.sink.name, position))
        self._stored = position

    async def _write(self, act: Callable[[Connection], T]) -> T:
        def write() -> T:
            with self._database.write() as connection:
                return act(connection)

        return await asyncio.to_thread(write)

    async def _pause(self, seconds: float) -> None:
        await self._or_stop(asyncio.sleep(seconds))

    async def _or_stop(self, awaitable: Coroutine[Any, Any, None]) -> None:
        tasks = [asyncio.create_task(awaitable), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
