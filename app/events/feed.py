"""The live feed of committed events.

One task reads new events from the log and keeps the latest in memory. Readers that are up to date are served
from there, so that they need neither queries nor buffers of their own. Every reader gets exactly the log's
events, in the log's order: none is lost or repeated between replay and live.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from sqlalchemy import select

from app.database.engine import Database
from app.database.tables import identity
from app.errors.problems import Problem
from app.events import log
from app.events.cursor import Cursors
from app.events.log import EventSelector, NumberedEvent
from app.scheduling.concurrency_limit import ConcurrencyLimit

logger = logging.getLogger("flowgauge.feed")

# A reader that falls further behind is disconnected. At 0.5 kB each, all readers together need 2 MB.
KEPT_IN_MEMORY: Final = 4096
# The feed polls for events that do not wake it: reviews, and actions of other processes.
POLL_SECONDS: Final = 0.5
HEARTBEAT_SECONDS: Final = 15.0
_PAGE: Final = 500
# Events that one query of a replay scans, about 20 ms. Other work runs between two queries.
_SCAN_LIMIT: Final = 20_000


class ReaderTooSlow(Exception):  # noqa: N818  (a state)
    """A reader fell behind the events in memory or in the log."""


class Feed:
    """The live events of a service.

    Attributes:
        position: the number of the newest event.
    """

    def __init__(self, database: Database, max_readers: int, kept: int = KEPT_IN_MEMORY) -> None:
        self._database = database
        self._reader_limit = ConcurrencyLimit(max_readers, "listen to the events")
        self._kept = kept
        self._latest: deque[NumberedEvent] = deque()
        # `_latest` has all events after `_floor` up to `position`.
        self._floor = self.position = 0
        self._wake = asyncio.Event()
        self._has_news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._replaying = asyncio.Lock()  # one replay at a time, to leave threads for other work
        self.ended = False
        # For monitoring.
        self.sent = 0
        self.dropped: Counter[str] = Counter(slow=0, turned_away=0)

    async def open(self) -> None:
        """Start after the newest event. The history must be open.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        self._loop = asyncio.get_running_loop()

        def read_start() -> tuple[str, int]:
            with self._database.read() as connection:
                return connection.scalar(select(identity.c.id)) or "", log.newest_number(connection)

        name, self.position = await asyncio.to_thread(read_start)
        self.cursors = Cursors(name)
        self._floor = self.position
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End all readers and stop reading."""
        self.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self, _: Sequence[object] = ()) -> None:
        """Read new events now. May be called from any thread; a callback of the history."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    def end(self) -> None:
        """Let every reader finish, because the server closes its port."""
        self.ended = True
        self._notify()

    @property
    def readers(self) -> int:
        return self._reader_limit.held

    @contextlib.contextmanager
    def reader(self, key_id: str | None = None) -> Iterator[None]:
        """Count as a reader inside this context.

        Raises:
            Problem: queue-full at the limit of readers; draining if the port closes.
        """
        if self.ended:
            raise Problem("draining", "The server is stopping. Connect again, to another server.")
        try:
            self._reader_limit.require_free(key_id)
        except Problem:
            self.dropped["turned_away"] += 1
            raise
        with self._reader_limit.hold(key_id):
            yield

    async def kept(self) -> tuple[int, int]:
        """Return the numbers of the last deleted event and of the newest one.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """

        def read_range() -> tuple[int, int]:
            with self._database.read() as connection:
                return log.last_deleted(connection), log.newest_number(connection)

        return await asyncio.to_thread(read_range)

    async def wait(self, after: int) -> None:
        while self.position <= after:
            await self._has_news.wait()

    async def follow(
        self, after: int, selector: EventSelector
    ) -> AsyncGenerator[tuple[int, list[NumberedEvent]], None]:
        """Yield the selected events after a number, from the log and then live, until the feed ends.

        Yields:
            The position reached, and the events on the way. The list is empty as a heartbeat, and after a
            scan without selected events.

        Raises:
            ReaderTooSlow: the caller is too slow; the log has the missing events.
            DatabaseUnavailable: the log cannot be read.
        """
        while after < self._floor:
            async with self._replaying:
                after, events = await asyncio.to_thread(self._replay, after, selector)
            yield after, events
            if self.ended:
                return
        yield after, []
        now = asyncio.get_running_loop().time
        due = now() + HEARTBEAT_SECONDS
        while not self.ended:
            if after < self._floor:
                raise ReaderTooSlow
            has_news = self._has_news
            if after < self.position:
                page = self._since(after)
                after = page[-1].number
                if events := [event for event in page if selector.matches(event)]:
                    yield after, events
                    due = now() + HEARTBEAT_SECONDS
                continue
            try:
                # Counts from the last yield: events in between may not be selected.
                async with asyncio.timeout_at(due):
                    await has_news.wait()
            except TimeoutError:
                yield after, []
                due = now() + HEARTBEAT_SECONDS

    def _replay(self, after: int, selector: EventSelector) -> tuple[int, list[NumberedEvent]]:
        with self._database.read() as connection:
            if after < log.last_deleted(connection):
                raise ReaderTooSlow
            end = min(log.newest_number(connection), after + _SCAN_LIMIT)
            events = log.read(connection, after, _PAGE, selector, end)
        return (events[-1].number if len(events) == _PAGE else max(after, end)), events

    def _since(self, after: int) -> list[NumberedEvent]:
        """Return the events in memory after a number, at most a page."""
        newest_first = itertools.takewhile(lambda event: event.number > after, reversed(self._latest))
        return list(newest_first)[::-1][:_PAGE]

    async def _run(self) -> None:
        is_failing = False
        while True:
            self._wake.clear()
            try:
                events = await asyncio.to_thread(self._read)
            except Exception:
                if not is_failing:  # once: the history logs its own errors too
                    logger.exception("cannot read new events; trying again")
                is_failing = True
                await asyncio.sleep(POLL_SECONDS)
                continue
            if is_failing:
                logger.info("new events can be read again")
                is_failing = False
            if events:
                self._publish(events)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    def _read(self) -> list[NumberedEvent]:
        with self._database.read() as connection:
            return log.read(connection, self.position, _PAGE)

    def _publish(self, events: Sequence[NumberedEvent]) -> None:
        self._latest.extend(events)
        while len(self._latest) > self._kept:
            self._floor = self._latest.popleft().number
        self.position = events[-1].number
        self._notify()

    def _notify(self) -> None:
        has_news, self._has_news = self._has_news, asyncio.Event()
        has_news.set()
