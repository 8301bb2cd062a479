"""Wait for conditions that a thread, a task or another process fulfils."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_SECONDS: Final = 120  # a busy machine's; what holds sooner is seen sooner


def eventually(holds: Callable[[], bool]) -> None:
    """Wait in this thread until a condition holds; fail after the time limit."""
    deadline = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    """Wait while other tasks run until a condition holds; fail after the time limit."""
    async with asyncio.timeout(_SECONDS):
        while not holds():
            await asyncio.sleep(0.002)


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Suspend a process within the block, like a pulled cable."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
