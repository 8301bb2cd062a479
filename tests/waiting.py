"""Waiting for what happens elsewhere: in a thread, in another task, in another process."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

_SECONDS: Final = 120  # a busy machine's; what holds sooner is seen sooner


def eventually(holds: Callable[[], bool]) -> None:
    """Wait, in this thread, until something holds; fail when it does not."""
    deadline = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    """Wait, and let other tasks run, until something holds; fail when it does not."""
    async with asyncio.timeout(_SECONDS):
        while not holds():
            await asyncio.sleep(0.002)
