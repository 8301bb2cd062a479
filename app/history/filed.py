"""How far the journal's records are in the database, and who waits for more."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Final

from app.problems import Problem

WAIT_SECONDS: Final = 10.0


class FiledPosition:
    """The end of the last record in the database, in bytes of all that was ever appended to the journal.

    May be used from several threads at once.
    """

    def __init__(self) -> None:
        self.reached = 0
        self._waiting: dict[Future[None], int] = {}  # the position that each waits for
        self._lock = threading.Lock()

    def reach(self, position: int) -> None:
        """Set the position, and let those go on who waited for it."""
        with self._lock:
            self.reached = position
            done = [future for future, wanted in self._waiting.items() if wanted <= position]
            for future in done:
                del self._waiting[future]
        for future in done:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    async def wait(self, position: int, seconds: float = WAIT_SECONDS) -> None:
        """Wait until all records up to a position are in the database.

        Raises:
            Problem: history-unavailable, if it takes too long.
        """
        future: Future[None] = Future()
        with self._lock:
            if position <= self.reached:
                return
            self._waiting[future] = position
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
