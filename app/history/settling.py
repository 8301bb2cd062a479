"""Waiting until what was just answered is in the database."""

import asyncio
import threading
from collections.abc import Hashable, Iterable
from concurrent.futures import Future
from typing import Final

from app.problems import Problem

WAIT_SECONDS: Final = 10.0


class Settling:
    """Which names (an inspection's id, a part's) are still in the journal, and who waits for them.

    Positions are bytes in all that was ever appended to the journal.

    Args:
        left_over: how far the records of an earlier process reach, whose names are not known.
    """

    def __init__(self, left_over: int) -> None:
        self._left_over = left_over
        self._reached = 0
        # In the order of their positions.
        self._pending: dict[Hashable, int] = {}
        self._waiting: list[tuple[int, Future[None]]] = []
        self._lock = threading.Lock()

    def expect(self, names: Iterable[Hashable], position: int) -> None:
        """Names are in the journal, in a record that ends at a position."""
        with self._lock:
            if position > self._reached:
                for name in names:
                    self._pending.pop(name, None)
                    self._pending[name] = position

    def reach(self, position: int) -> None:
        """All records up to a position are in the database."""
        with self._lock:
            self._reached = position
            done = []
            for name, end in self._pending.items():
                if end > position:
                    break
                done.append(name)
            for name in done:
                del self._pending[name]
            arrived = [future for end, future in self._waiting if end <= position]
            self._waiting = [waiting for waiting in self._waiting if waiting[0] > position]
        for future in arrived:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    async def wait(self, name: Hashable, seconds: float = WAIT_SECONDS) -> None:
        """Wait until all that is known under a name is in the database.

        Raises:
            Problem: history-unavailable, if it takes too long.
        """
        with self._lock:
            position = self._pending.get(name, self._left_over)
            if position <= self._reached:
                return
            future: Future[None] = Future()
            self._waiting.append((position, future))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise Problem(
                "history-unavailable", "The inspection is kept and not filed yet; ask again later."
            ) from error
