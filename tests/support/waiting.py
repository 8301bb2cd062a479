"""Waiting for what happens elsewhere: in a thread, in another task, in another process."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """A process is stopped, as behind a cable that was pulled, and goes on after that."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
