"""The live feed: events as they are committed, for everybody who listens.

One task reads the log when something was filed, and keeps the latest events in memory; readers that are up
to date are served from there. So a reader costs neither the database anything nor a buffer of its own, and
what it gets is what the log has, in the log's order: nothing is lost between replay and live, and nothing
comes twice.
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

# A reader that falls behind by more is sent away; with 0.5 kB each, 2 MB in all, whoever listens.
KEPT_IN_MEMORY: Final = 4096
# What nobody tells the feed of (reviews, acts of other processes) is seen within so many seconds.
LOOK_SECONDS: Final = 0.5
HEARTBEAT_SECONDS: Final = 15.0
_PAGE: Final = 500
# Events that one query of a replay looks at, some 20 ms: others have their turn before the next.
_LOOKED_AT: Final = 20_000


class ReaderTooSlow(Exception):  # noqa: N818  (a state)
    """A reader was up to date and has fallen behind what is in memory, or behind all that is kept."""


class Feed:
    """The events of a service, live.

    Args:
        database: of the history.
        most_readers: that may listen at a time.
        kept: events in memory.

    Attributes:
        position: the number of the newest event.
    """

    def __init__(self, database: Database, most_readers: int, kept: int = KEPT_IN_MEMORY) -> None:
        self._database = database
        self._places = ConcurrencyLimit(most_readers, "listen to the events")
        self._kept = kept
        self._latest: deque[NumberedEvent] = deque()
        # All events after the one and up to the other, the newest, are in `_latest`.
        self._floor = self.position = 0
        self._awake = asyncio.Event()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._replaying = asyncio.Lock()  # one at a time: readers who replay leave threads to all others
        self.ended = False
        # For monitoring.
        self.sent = 0
        self.dropped: Counter[str] = Counter(slow=0, turned_away=0)

    async def open(self) -> None:
        """Begin after what is there; the history must be open.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        self._loop = asyncio.get_running_loop()

        def look() -> tuple[str, int]:
            with self._database.read() as connection:
                return connection.scalar(select(identity.c.id)) or "", log.newest_number(connection)

        name, self.position = await asyncio.to_thread(look)
        self.cursors = Cursors(name)
        self._floor = self.position
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Send everybody away and stop reading."""
        self.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self, _: Sequence[object] = ()) -> None:
        """Something was committed; from any thread, also as a callback of the history."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)

    def end(self) -> None:
        """Let every reader finish: the server closes its port."""
        self.ended = True
        self._tell()

    @property
    def readers(self) -> int:
        """How many listen at present."""
        return self._places.held

    @contextlib.contextmanager
    def reader(self, key_id: str | None = None) -> Iterator[None]:
        """Be one of those who listen.

        Args:
            key_id: whose, see `ConcurrencyLimit`.

        Raises:
            Problem: queue-full, where there are as many as may be; draining, where the port closes.
        """
        if self.ended:
            raise Problem("draining", "The server is stopping. Listen again, to another server.")
        try:
            self._places.require_free(key_id)
        except Problem:
            self.dropped["turned_away"] += 1
            raise
        with self._places.hold(key_id):
            yield

    async def kept(self) -> tuple[int, int]:
        """After which number events are kept, and up to which.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """

        def look() -> tuple[int, int]:
            with self._database.read() as connection:
                return log.last_deleted(connection), log.newest_number(connection)

        return await asyncio.to_thread(look)

    async def wait(self, after: int) -> None:
        """Wait until there is an event after a number."""
        while self.position <= after:
            await self._news.wait()

    async def follow(
        self, after: int, wanted: EventSelector
    ) -> AsyncGenerator[tuple[int, list[NumberedEvent]], None]:
        """All wanted events after a number, from the log and then as they happen, until the feed ends.

        Args:
            after: a number.
            wanted: which events.

        Yields:
            How far this has come, and the events on the way: none where there was nothing for a while, or
            among many that were looked at.

        Raises:
            ReaderTooSlow: whoever takes them is too slow; the log has what is missing.
            DatabaseUnavailable: the log cannot be read.
        """
        while after < self._floor:
            async with self._replaying:
                after, events = await asyncio.to_thread(self._replay, after, wanted)
            yield after, events
            if self.ended:
                return
        yield after, []
        now = asyncio.get_running_loop().time
        due = now() + HEARTBEAT_SECONDS
        while not self.ended:
            if after < self._floor:
                raise ReaderTooSlow
            news = self._news
            if after < self.position:
                passed = self._since(after)
                after = passed[-1].number
                if events := [event for event in passed if wanted.admits(event)]:
                    yield after, events
                    due = now() + HEARTBEAT_SECONDS
                continue
            try:
                # Since something was last given, not since something happened, which may be unwanted.
                async with asyncio.timeout_at(due):
                    await news.wait()
            except TimeoutError:
                yield after, []
                due = now() + HEARTBEAT_SECONDS

    def _replay(self, after: int, wanted: EventSelector) -> tuple[int, list[NumberedEvent]]:
        with self._database.read() as connection:
            if after < log.last_deleted(connection):
                raise ReaderTooSlow
            end = min(log.newest_number(connection), after + _LOOKED_AT)
            events = log.read(connection, after, _PAGE, wanted, end)
        return (events[-1].number if len(events) == _PAGE else max(after, end)), events

    def _since(self, after: int) -> list[NumberedEvent]:
        """Events in memory after a number, a page at most."""
        newest_first = itertools.takewhile(lambda event: event.number > after, reversed(self._latest))
        return list(newest_first)[::-1][:_PAGE]

    async def _run(self) -> None:
        is_failing = False
        while True:
            self._awake.clear()
            try:
                events = await asyncio.to_thread(self._read)
            except Exception:
                if not is_failing:  # once: the history's own complaints are in the log as well
                    logger.exception("new events cannot be read")
                is_failing = True
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if is_failing:
                logger.info("new events are read again")
                is_failing = False
            if events:
                self._take(events)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._awake.wait()

    def _read(self) -> list[NumberedEvent]:
        with self._database.read() as connection:
            return log.read(connection, self.position, _PAGE)

    def _take(self, events: Sequence[NumberedEvent]) -> None:
        self._latest.extend(events)
        while len(self._latest) > self._kept:
            self._floor = self._latest.popleft().number
        self.position = events[-1].number
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
