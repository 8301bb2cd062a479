"""The model thread: images of all categories wait in one fair queue and are scored in batches."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, ParamSpec

import numpy as np
from numpy.typing import NDArray

from app.problems import Problem
from app.scheduling.batch import Batch, BatchResult, Job, computes
from app.scheduling.fair_queue import FairQueue, MovingAverage
from flows.fastflow.detector import Detector
from flows.fastflow.geometry import Prepared

logger = logging.getLogger("flowgauge.batcher")

# Called after a batch with its images, its seconds, and the category of each image.
Observer = Callable[[int, float, Sequence[str]], None]

# A batch is to take no longer: images of other groups wait for it. Larger ones gain nothing.
_MOST_SECONDS: Final = 0.25
# A batch that takes longer will not end; the default deadline of a request is a quarter of this.
_HANGS_SECONDS: Final = 120.0
# For the batch that runs when the server stops: requests have had their time before.
_CLOSE_SECONDS: Final = 10.0

P = ParamSpec("P")
_Answers = Sequence[tuple[Job, BatchResult | Exception]]


class Batcher:
    """Scores images in one thread. Made and used in one event loop.

    A batch holds images of any categories whose models share the backbone and the input size. Nothing waits
    for a batch to fill: while one is computed, the next one gathers. Categories share the thread by time, see
    `FairQueue`. How much may wait is bounded by the caller, see `Admission`.

    Args:
        max_batch: images scored together, at most; one of several tiles counts as so many.
        observer: called in the event loop after each batch.
    """

    def __init__(self, max_batch: int, observer: Observer | None = None) -> None:
        self._max_batch = max_batch
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()  # guards all that follows
        self._queue = FairQueue[Job]()
        self._running: list[Job] = []
        self._began = 0.0
        self._closed = False
        self._batch_seconds = MovingAverage()
        self.lost: str | None = None  # why the device computes no more; only a new process helps
        self.passes = 0  # of a backbone so far
        # A daemon: a server whose start fails after this must be able to end.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    async def score(
        self,
        detector: Detector,
        prepared: Prepared,
        region: NDArray[np.bool_] | None = None,
        deadline: float | None = None,
    ) -> BatchResult:
        """Score an image. If this is cancelled before the image's batch begins, it is never computed.

        Args:
            detector: the model.
            prepared: from `detector.prepare`.
            region: the region of interest, (height, width) of its map; by default everything.
            deadline: time.monotonic() from which nobody wants the answer.

        Raises:
            Problem: deadline-exceeded; if its batch had not begun, it is never computed. draining, after
                `close`.
            Exception: what the model raised over this image, computed alone.
        """
        now = time.monotonic()
        job = Job(detector, prepared, region, deadline, self._loop.create_future(), now)
        if job.is_expired():
            raise _deadline_exceeded()
        with self._changed:
            if self._closed:
                raise _draining()
            self._queue.put(job.category, job)
            self._changed.notify()
        timer = None if deadline is None else self._loop.call_later(deadline - now, self._expire, job)
        try:
            return await job.future
        finally:
            if timer is not None:
                timer.cancel()
            if job.future.cancelled():
                self._withdraw(job)

    @property
    def pending(self) -> int:
        """Images that wait or are being scored."""
        with self._changed:
            return len(self._queue) + len(self._running)

    def require_alive(self) -> None:
        """Raise the problem model-loading where nothing is answered until the process is restarted."""
        with self._changed:
            spent = time.monotonic() - self._began if self._running else 0.0
        if self.lost is not None:
            raise Problem("model-loading", self.lost)
        if spent > _HANGS_SECONDS:
            raise Problem("model-loading", f"A batch has taken {spent:.0f} s so far, and all others wait.")

    def expected_wait(self) -> float:
        """Estimate the seconds until all that waits or runs is scored."""
        with self._changed:
            return self._remaining() + sum(self._queue.work().values())

    def expected_seconds(self, category: str, images: int, held: Mapping[str, int]) -> float:
        """Estimate in how many seconds so many more images of a category would be scored.

        Of the images that the service holds, by category, some have not come here yet, and some wait here:
        counted twice, they stand for decoding, drawing and sending, which take time, too. 0 while there are
        none, whatever was measured before: only an accepted image can correct a wrong estimate.
        """
        with self._changed:
            if not (self._queue or self._running or any(held.values())):
                return 0.0
            before = self._queue.work_before(category, images, held)
            # The answer comes with the batch, which others fill up.
            batch = min(sum(self._queue.work(held).values()), self._batch_seconds.value or 0.0)
            return self._remaining() + before + batch

    def close(self) -> None:
        """Finish the batch that runs, answer what waits with the problem draining, end the thread."""
        with self._changed:
            self._closed = True
            waiting = self._queue.clear()
            self._changed.notify()
        self._call(self._resolve, [(job, _draining()) for job in waiting])
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():  # it ends with the process
            logger.error("the running batch has not ended in %.0f s; it is left", _CLOSE_SECONDS)

    def _remaining(self) -> float:
        expected = sum(self._queue.cost(job.category) for job in self._running)
        return max(0.0, expected - (time.monotonic() - self._began))

    def _expire(self, job: Job) -> None:
        self._withdraw(job)
        self._resolve([(job, _deadline_exceeded())])

    def _withdraw(self, job: Job) -> None:
        with self._changed:
            self._queue.remove(job.category, job)

    def _run(self) -> None:
        # Between batches nothing refers to the last one, so that an unloaded model leaves memory.
        while self._run_batch():
            pass

    def _run_batch(self) -> bool:
        """Wait for images and score a batch of them. Returns False once this is closed."""
        answers: _Answers = []
        computed: list[Job] = []
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return False
                self._began = time.monotonic()
                self._take()
            answers, computed = self._compute()
        # Nothing may end this thread, not even SystemExit: all that comes later would wait for ever.
        except BaseException as error:
            logger.exception("a batch failed as a whole")
            answers = [(job, _as_exception(error)) for job in self._running]
        self._check_device(answers)
        self._finish(computed)
        self._call(self._resolve, answers)
        return True

    def _compute(self) -> tuple[_Answers, list[Job]]:
        """Score the running jobs. Returns their answers, and the jobs that were computed."""
        answers: list[tuple[Job, BatchResult | Exception]]
        answers = [(job, _deadline_exceeded()) for job in self._running if job.is_expired()]
        wanted = [job for job in self._running if job.is_wanted()]
        if not wanted:
            return answers, []
        batch = Batch(wanted)
        results = batch.compute()
        self.passes += batch.passes
        took = time.monotonic() - self._began
        for job, result in results:
            if isinstance(result, Exception):
                answers.append((job, _as_exception(result)))
            else:
                answers.append((job, BatchResult(result, self._began - job.submitted, took, len(wanted))))
        return answers, [job for job, _ in results]

    def _take(self) -> None:
        """Move the next batch from the queue to `_running`.

        It begins with the lane whose turn it is and takes in other lanes of its group, in their turn. Lanes
        that are ahead of those of other groups are left out: they would have the time of others, in batches
        that somebody else began.
        """
        heads = self._queue.heads()
        group = next(iter(heads.values())).group
        others = (self._queue.start(name) for name, job in heads.items() if job.group != group)
        latest_start = min(others, default=math.inf) + _MOST_SECONDS
        tiles, seconds = 0, 0.0
        while own := {name: job for name, job in heads.items() if job.group == group}:
            name, job = next(iter(own.items()))
            tiles += job.tiles
            seconds += self._queue.cost(name)
            is_full = tiles > self._max_batch or seconds > _MOST_SECONDS
            is_ahead = self._queue.start(name) > latest_start
            is_alone = job.is_large or any(one.is_large for one in self._running)
            if self._running and (is_full or is_ahead or is_alone):
                return
            self._running.append(self._queue.pop(name))
            heads = self._queue.heads()

    def _check_device(self, answers: _Answers) -> None:
        """After a failure, see whether the device still computes: after some errors of CUDA it never does."""
        failed = (job for job, answer in answers if not isinstance(answer, BatchResult | Problem))
        job = next(failed, None)
        if job is not None and self.lost is None and not computes(job.detector.device):
            self.lost = f"{job.detector.device} does not compute any more: the server must be restarted."
            logger.critical("%s", self.lost)

    def _finish(self, computed: Sequence[Job]) -> None:
        seconds = time.monotonic() - self._began
        tiles = sum(job.tiles for job in computed)
        with self._changed:
            for job in self._running:
                cost = seconds * job.tiles / tiles if job in computed else None
                self._queue.settle(job.category, cost)
            self._running = []
            if computed:
                self._batch_seconds.add(seconds)
        if computed and self._observer is not None:
            self._call(self._observer, len(computed), seconds, [job.category for job in computed])

    def _call(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(partial(function, *args, **kwargs))

    @staticmethod
    def _resolve(answers: _Answers) -> None:
        for job, answer in answers:
            if job.future.done():
                continue
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)


def _as_exception(error: BaseException) -> Exception:
    """The error that a caller gets: never one that would end a coroutine or the process."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the model ended with {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def _deadline_exceeded() -> Problem:
    return Problem("deadline-exceeded", "The deadline passed while the image waited, or was being computed.")


def _draining() -> Problem:
    return Problem("draining", "The server is stopping. Send the image again, to another one.")
