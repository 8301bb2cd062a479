"""Worker threads that categories share fairly."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.scheduling.fair_queue import FairQueue

T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, the seconds it waited for a thread, and the seconds it took there."""

    value: T
    waited: float
    took: float


_Job = tuple["Future[Any]", Callable[[], Any]]


class FairThreadPool:
    """Threads that lanes share by time, see `FairQueue`.

    A job whose await is cancelled before a thread takes it up is never run, and forgotten at once with all
    that it holds. A job that fails fails alone.

    Args:
        threads: jobs at a time.
        name: of the threads.
        first: a lane that goes before all others.
    """

    def __init__(self, threads: int, name: str, first: str | None = None) -> None:
        self._first = first
        self._threads = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()  # guards the queue
        self._queue = FairQueue[_Job]()

    def __len__(self) -> int:
        """How many jobs wait for a thread."""
        with self._lock:
            return len(self._queue)

    async def run(self, lane: str, function: Callable[[], T]) -> Timed[T]:
        """Call a function in a thread, when it is its lane's turn."""
        future, job = self._put(lane, function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            with self._lock:
                self._queue.remove(lane, job)
            raise
        finally:
            del future, job  # a failure's traceback leads here, and would keep all that the job holds

    def submit(self, lane: str, function: Callable[[], T]) -> "Future[Timed[T]]":
        """The same without an event loop."""
        return self._put(lane, function)[0]

    def close(self) -> None:
        """Finish what runs, cancel what waits, end the threads."""
        with self._lock:
            waiting = self._queue.clear()
        for future, _ in waiting:
            future.cancel()
        self._threads.shutdown(cancel_futures=True)

    def _put(self, lane: str, function: Callable[[], T]) -> "tuple[Future[Timed[T]], _Job]":
        future = Future[Timed[T]]()
        job = future, _timed(function)
        with self._lock:
            self._queue.put(lane, job)
        self._threads.submit(self._run_next)  # whichever job's turn it is by then
        return future, job

    def _run_next(self) -> None:
        """Run the job whose turn it is. Skip cancelled jobs."""
        with self._lock:
            while True:
                heads = self._queue.heads()
                if not heads:
                    return
                first = self._first
                lane = first if first is not None and first in heads else next(iter(heads))
                future, job = self._queue.pop(lane)
                if future.set_running_or_notify_cancel():
                    break
                self._queue.settle(lane, None)
            del heads
        begun = time.perf_counter()
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
        finally:
            del future, job  # as in `run`
            with self._lock:
                self._queue.settle(lane, time.perf_counter() - begun)


def _timed(function: Callable[[], T]) -> Callable[[], Timed[T]]:
    submitted = time.perf_counter()

    def job() -> Timed[T]:
        start = time.perf_counter()
        value = function()
        return Timed(value, start - submitted, time.perf_counter() - start)

    return job
