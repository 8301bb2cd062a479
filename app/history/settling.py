"""Waiting until what was just answered is in the database."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from concurrent.futures import Future
from typing import Final

from app.problems import Problem

WAIT_SECONDS: Final = 10.0


class Settling:
    """Which names (an inspection's id, a part's) are on their way to the database, and who waits for them.

    What arrives is numbered, and has settled with all that arrived before it. Positions are bytes in all that
    was ever appended to the journal; number 0 is what an earlier process has left there, under unknown names.

    Args:
        left_over: the position of its end.
    """

    def __init__(self, left_over: int) -> None:
        self._reached = 0
        self._last = 0
        # What is on its way, by number: where its record ends, None as long as the journal does not have it.
        # Ordered, as a plain dict finds its first key slowly when many have been removed before it.
        self._open: OrderedDict[int, int | None] = OrderedDict()
        if left_over:
            self._open[0] = left_over
        # The last number of each name, in the order of the numbers.
        self._pending: OrderedDict[Hashable, int] = OrderedDict()
        self._waiting: dict[Future[None], int] = {}  # the number that each waits for
        self._lock = threading.Lock()

    def arrive(self, names: Iterable[Hashable]) -> int:
        """Something under these names is about to be written to the journal, after all that arrived before.

        Returns:
            Its number, for `appended` or else `forget`.
        """
        with self._lock:
            self._last += 1
            self._open[self._last] = None
            for name in names:
                self._pending[name] = self._last
                self._pending.move_to_end(name)
            return self._last

    def appended(self, number: int, position: int) -> None:
        """What arrived is in the journal, in a record that ends at a position."""
        with self._lock:
            self._open[number] = position
            done = self._settle()
        _tell(done)

    def forget(self, number: int) -> None:
        """What arrived is not kept."""
        with self._lock:
            self._open.pop(number, None)
            done = self._settle()
        _tell(done)

    def reach(self, position: int) -> None:
        """All records up to a position are in the database."""
        with self._lock:
            self._reached = position
            done = self._settle()
        _tell(done)

    async def wait(self, name: Hashable, seconds: float = WAIT_SECONDS) -> None:
        """Wait until all that is known under a name is in the database.

        Raises:
            Problem: history-unavailable, if it takes too long.
        """
        with self._lock:
            number = self._pending.get(name, 0)
            if number < self._first():
                return
            future: Future[None] = Future()
            self._waiting[future] = number
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise Problem(
                "history-unavailable", "The inspection is kept and not filed yet; ask again later."
            ) from error
        finally:
            with self._lock:
                self._waiting.pop(future, None)

    def _first(self) -> int:
        """The number of what is on its way for longest; all before it has settled."""
        return next(iter(self._open), self._last + 1)

    def _settle(self) -> list[Future[None]]:
        """Forget what is in the database; who has waited for it."""
        while self._open:
            number, end = next(iter(self._open.items()))
            if end is None or end > self._reached:
                break
            del self._open[number]
        first = self._first()
        while self._pending and next(iter(self._pending.values())) < first:
            self._pending.popitem(last=False)
        done = [future for future, number in self._waiting.items() if number < first]
        for future in done:
            del self._waiting[future]
        return done


def _tell(waiting: list[Future[None]]) -> None:
    for future in waiting:
        if future.set_running_or_notify_cancel():
            future.set_result(None)
