"""Threads that give all lanes as much time, and hold on to no job that nobody waits for."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

# Time is counted in such steps, begun ones whole: lanes of quick jobs take turns one by one.
_STEP: Final = 0.005  # seconds


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, the seconds until a thread took the job up, and the seconds it took there."""

    value: T
    waited: float
    took: float


_Job = tuple["Future[Any]", Callable[[], Any]]


@dataclass
class _Lane:
    """The jobs of one lane that wait.

    Attributes:
        jobs: first in, first out.
        start: when it may have its next turn, in steps of the threads' time that its jobs took.
        latest: steps that its latest job took; so many are counted for one that runs, until that has ended.
        running: its jobs at which a thread is.
    """

    jobs: deque[_Job] = field(default_factory=deque)
    start: int = 0
    latest: int = 1
    running: int = 0


class Turns:
    """A pool of threads that lanes share by time; within a lane the first that came is first.

    The next job is of the lane whose jobs have taken least (start-time fair queueing, Goyal, Vin and Cheng
    1996): who sends large pictures has fewer done than who sends small ones, and does not hold these up but
    for the job that a thread is at. A lane that was idle begins where the others are, and has saved up
    nothing.

    The event loop only waits. A job whose await is cancelled before a thread took it up is never computed and
    at once forgotten, with all that it holds; a job that fails fails alone.

    Args:
        threads: jobs at a time.
        name: of the threads, with a number.
        first: a lane that goes before all others.
    """

    def __init__(self, threads: int, name: str, first: str | None = None) -> None:
        self._first = first
        self._threads = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()  # guards what follows
        self._lanes: dict[str, _Lane] = {}  # that have jobs, or had; who was served last is last
        self._now = 0  # the start of the turn that was taken last

    def __len__(self) -> int:
        """How many jobs wait for a thread."""
        with self._lock:
            return sum(len(lane.jobs) for lane in self._lanes.values())

    async def do(self, lane: str, function: Callable[[], T]) -> Timed[T]:
        """Have a function called by a thread, when it is its lane's turn."""
        future, job = self._put(lane, function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            with self._lock:
                own = self._lanes.get(lane)
                if own is not None and job in own.jobs:
                    own.jobs.remove(job)
            raise
        finally:
            del future, job  # of one that failed the error leads here, and would keep all that it was given

    def submit(self, lane: str, function: Callable[[], T]) -> "Future[Timed[T]]":
        """The same for who has no event loop."""
        return self._put(lane, function)[0]

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        with self._lock:
            waiting = [job for lane in self._lanes.values() for job in lane.jobs]
            self._lanes.clear()
        for future, _ in waiting:
            future.cancel()
        self._threads.shutdown(cancel_futures=True)

    def _put(self, name: str, function: Callable[[], T]) -> "tuple[Future[Timed[T]], _Job]":
        future = Future[Timed[T]]()
        job = future, _timed(function)
        with self._lock:
            lane = self._lanes.setdefault(name, _Lane())
            if not lane.jobs and not lane.running:
                lane.start = max(lane.start, self._now)
            lane.jobs.append(job)
        # A thread takes the job whose turn it is, which may be another one.
        self._threads.submit(self._next)
        return future, job

    def _next(self) -> None:
        """Do the job whose turn it is, past those that nobody waits for any more."""
        with self._lock:
            while True:
                waiting = [name for name, lane in self._lanes.items() if lane.jobs]
                if not waiting:
                    return
                # Of those with the least start the first: who was served last is last.
                name = min(waiting, key=lambda one: (one != self._first, self._lanes[one].start))
                lane = self._lanes[name]
                self._now = max(self._now, lane.start if name != self._first else 0)
                future, job = lane.jobs.popleft()
                if future.set_running_or_notify_cancel():
                    break
            counted = lane.latest
            lane.start += counted
            lane.running += 1
            self._lanes[name] = self._lanes.pop(name)
        begun = time.perf_counter()
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
        finally:
            del future, job  # as in `do`
            with self._lock:
                lane.latest = max(1, math.ceil((time.perf_counter() - begun) / _STEP))
                lane.start += lane.latest - counted
                lane.running -= 1
                if not any(one.jobs or one.running for one in self._lanes.values()):
                    self._lanes.clear()  # and nobody owes anything
                    self._now = 0
                for idle in [n for n, one in self._lanes.items() if self._is_even(one)]:
                    del self._lanes[idle]

    def _is_even(self, lane: _Lane) -> bool:
        """Whether a lane that is idle would begin anew all the same."""
        return not lane.jobs and not lane.running and lane.start <= self._now


def _timed(function: Callable[[], T]) -> Callable[[], Timed[T]]:
    submitted = time.perf_counter()

    def job() -> Timed[T]:
        start = time.perf_counter()
        value = function()
        return Timed(value, start - submitted, time.perf_counter() - start)

    return job
