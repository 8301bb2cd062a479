"""Until when the answer to a request is waited for, and what counts of the time before."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """A time that a request asks for counts from its arrival, for its client waits no longer.

    Where it asks for none, it counts from the end of its upload, which has a patience of its own
    (`app/patience.py`): whoever sends as fast as is asked of it is answered, and who stalls is told so.

    Args:
        asked: milliseconds that the request asks for, or None.
        default: milliseconds where it asks for none.

    Attributes:
        milliseconds: how long.
        at: time.monotonic() from which nobody waits any more, as far as is known.
    """

    def __init__(self, asked: int | None, default: int) -> None:
        self.milliseconds = asked or default
        self.at = time.monotonic() + self.milliseconds / 1000
        self._counts_upload = asked is not None
        self._limit: asyncio.Timeout | None = None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[asyncio.Timeout]:
        """What is done in here ends with a TimeoutError once the deadline has passed."""
        async with asyncio.timeout(self.at - time.monotonic()) as self._limit:
            yield self._limit

    async def uploaded(self, upload: Awaitable[T]) -> T:
        """Wait for what the client sends."""
        if self._counts_upload or self._limit is None:
            return await upload
        self._limit.reschedule(None)
        result = await upload
        seconds = self.milliseconds / 1000
        self.at = time.monotonic() + seconds
        self._limit.reschedule(asyncio.get_running_loop().time() + seconds)
        return result
