"""Threads that work on jobs in turns of their lanes, and hold on to none that nobody waits for."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.fair_queue import FairQueue, Lane

T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, the seconds until a thread took the job up, and the seconds it took there."""

    value: T
    waited: float
    took: float


_Job = tuple["Future[Any]", Callable[[], Any]]


class Turns:
    """A pool of threads. Lanes take turns, one job a turn; within a lane the first that came is first.

    The event loop only waits. A job whose await is cancelled before a thread took it up is never computed and
    at once forgotten, with all that it holds; a job that fails fails alone.

    Args:
        threads: jobs at a time.
        name: of the threads, with a number.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()  # guards what follows
        self._waiting: FairQueue[_Job] = FairQueue()

    def __len__(self) -> int:
        """How many jobs wait for a thread."""
        with self._lock:
            return len(self._waiting)

    async def do(self, lane: str, function: Callable[[], T]) -> Timed[T]:
        """Have a function called by a thread, when it is its lane's turn."""
        place, future = Lane(lane, None), Future[Timed[T]]()
        job = future, _timed(function)
        with self._lock:
            self._waiting.put(place, job)
        # A thread takes the job whose turn it is, which may be another one.
        self._threads.submit(self._next)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            with self._lock:
                self._waiting.remove(place, job)
            raise

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        with self._lock:
            waiting = self._waiting.clear()
        for future, _ in waiting:
            future.cancel()
        self._threads.shutdown(cancel_futures=True)

    def _next(self) -> None:
        """Do the job whose turn it is, past those that nobody waits for any more."""
        while True:
            taken: list[_Job] = []
            with self._lock:
                self._waiting.take(1, taken)
            if not taken:
                return
            [(future, job)] = taken
            if future.set_running_or_notify_cancel():
                break
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)


def _timed(function: Callable[[], T]) -> Callable[[], Timed[T]]:
    submitted = time.perf_counter()

    def job() -> Timed[T]:
        start = time.perf_counter()
        value = function()
        return Timed(value, start - submitted, time.perf_counter() - start)

    return job
