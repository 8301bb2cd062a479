"""A thread pool that categories share fairly."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.scheduling.fair_queue import FairQueue

T = TypeVar("T")

_Job = tuple["Future[Any]", Callable[[], Any], float]  # future, function, time.perf_counter() at submission


@dataclass(frozen=True)
class TimedResult(Generic[T]):
    """A result with its seconds of waiting and of running."""

    value: T
    waited: float
    took: float


class FairThreadPool:
    """Threads that categories share by time, see `FairQueue`.

    A job cancelled before a thread takes it is never run, and freed at once. An error affects only its job.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()  # guards the queue
        self._queue = FairQueue[_Job]()

    def __len__(self) -> int:
        """The number of waiting jobs."""
        with self._lock:
            return len(self._queue)

    async def run(self, category: str, function: Callable[[], T]) -> TimedResult[T]:
        """Run a function in a thread at the category's turn."""
        future = Future[TimedResult[T]]()
        job = future, function, time.perf_counter()
        with self._lock:
            self._queue.put(category, job)
        self._threads.submit(self._run_next)  # whichever job's turn it is by then
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            with self._lock:
                self._queue.remove(category, job)
            raise
        finally:
            del future, job, function  # an error's traceback refers to this frame and would keep them alive

    def close(self) -> None:
        """Finish running jobs, drop waiting ones, and end the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _run_next(self) -> None:
        """Run the job whose turn it is."""
        with self._lock:
            category = next(iter(self._queue.heads()), None)
            if category is None:  # a job was cancelled
                return
            future, function, submitted = self._queue.pop(category)
        begun = time.perf_counter()
        try:
            if future.set_running_or_notify_cancel():
                value = function()
                future.set_result(TimedResult(value, begun - submitted, time.perf_counter() - begun))
        except Exception as error:
            future.set_exception(error)
        finally:
            del future, function  # as in `run`
            with self._lock:
                self._queue.settle(category, time.perf_counter() - begun)
