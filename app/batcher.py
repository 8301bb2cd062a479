"""The model's thread: images of all categories wait in one fair line and are computed in batches.

A batch holds images of any categories whose models share the backbone and the input size. Nothing waits for a
batch to fill: while one is computed, the next one gathers.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray

from app.batch import Batched, Job, Outcome, compute, failure, too_late
from app.fair_queue import FairQueue, Lane
from app.pace import MUCH_SLOWER, Pace
from app.problems import Problem
from flows.fastflow.detector import Detector
from flows.fastflow.geometry import Prepared

logger = logging.getLogger("flowgauge.batcher")

# Of a batch that was computed: its images, the seconds it took, and the category of each image.
Observer = Callable[[int, float, Sequence[str]], None]

# A group that was last computed longer ago is not being served. A station may inspect a part now and then.
_SERVED_SECONDS = 3600.0
# A batch that takes longer will not end: by default nobody waits for an answer for a quarter of it.
_HANGS_SECONDS = 120.0
# Who stops has given all requests their time before.
_CLOSE_SECONDS = 10.0

P = ParamSpec("P")
_Answers = Sequence[tuple[Job, Batched | Exception]]


class Batcher:
    """Computes predictions, in a thread of its own. To be made and used in one event loop.

    One thread, because a detector is to be called from one at a time and torch uses all cores for it; the
    categories share it by time, see `FairQueue`. How much may wait here is bounded by who calls, see
    `Admission`.

    Args:
        max_batch: images computed together, at most; one in several tiles counts as so many.
        observer: called in the event loop after each batch.

    Attributes:
        lost: the device, where it computes no more, in words: nothing helps but a new process.
        batches: computed so far.
        passes: of a backbone so far; as many as batches, if none had to be repeated and no image was large.
        images: computed so far, those that failed too.
    """

    def __init__(self, max_batch: int, observer: Observer | None = None) -> None:
        self._max_batch = max_batch
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()  # guards all that follows
        self._queue: FairQueue[Job] = FairQueue(lambda job: job.tiles, self._pace)
        self._running: list[Job] = []
        self._began = 0.0
        self._closed = False
        self._paces: dict[Hashable, Pace] = {}
        self._lanes: dict[str, Lane] = {}  # where a category's images waited last
        self._idle_since = time.monotonic()
        self.lost: str | None = None
        self.batches = self.passes = self.images = 0
        # A daemon: a server whose start fails after this must be able to end.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    async def predict(
        self,
        detector: Detector,
        prepared: Prepared,
        region: NDArray[np.bool_] | None = None,
        deadline: float | None = None,
    ) -> Batched:
        """Inspect an image. If this is cancelled before the image's batch begins, it is never computed.

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
        if deadline is not None and deadline <= now:
            raise too_late()
        job = Job(detector, prepared, region, deadline, self._loop.create_future(), now)
        lane = job.lane
        with self._changed:
            if self._closed:
                raise _closing()
            if not (self._queue or self._running):
                self._queue.rest(max(0.0, now - self._idle_since))
                self._idle_since = now
            self._queue.put(lane, job)
            self._lanes[lane.category] = lane
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
        """Images that wait or are being computed."""
        with self._changed:
            return len(self._queue) + len(self._running)

    def expect_alive(self) -> None:
        """Raise the problem model-loading where no image is answered until the process is restarted."""
        with self._changed:
            spent = time.monotonic() - self._began if self._running else 0.0
        if self.lost is not None:
            raise Problem("model-loading", self.lost)
        if spent > _HANGS_SECONDS:
            raise Problem("model-loading", f"A batch takes {spent:.0f} s by now, and all others wait.")

    def expected_wait(
        self, images: int = 1, category: str | None = None, held: Mapping[str, int] | None = None
    ) -> float:
        """Estimate in how many seconds so many more images would be answered.

        0 while nothing waits, is computed or is held, whatever was measured before: only an image that is
        accepted can mend an estimate that is wrong.

        Args:
            images: how many, those that are `pending` not counted.
            category: of the images: those of one that sends little go before the long line of another. By
                default they come after all that is pending.
            held: other images that are to come before them, by category.
        """
        with self._changed:
            if not (self._queue or self._running or held):
                return 0.0
            if category is None:
                ahead = self._queue.waiting() + Counter[Hashable]({None: images})
            else:
                to_come = Counter(held) + Counter({category: images})
                more = {self._lane(name): n for name, n in to_come.items()}
                ahead = self._queue.forecast(self._lane(category), more, self._limit)
                if category not in self._lanes:  # it may share a batch with any of those that wait
                    ahead += self._longest_batch()
            seconds = sum(n * self._pace(group) for group, n in ahead.items())
            if self._running:
                whole = sum(job.tiles for job in self._running) * self._pace(self._running[0].lane.group)
                spent = time.monotonic() - self._began
                # One that already takes longer than it should says that the next ones will.
                slower = min(max(1.0, spent / whole), MUCH_SLOWER) if whole else 1.0
                seconds = slower * seconds + max(0.0, whole - spent)
        return seconds

    def close(self) -> None:
        """Finish the batch that runs, answer what waits with the problem draining, end the thread."""
        with self._changed:
            self._closed = True
            waiting = self._queue.clear()
            self._changed.notify()
        self._deliver([(job, _closing()) for job in waiting])
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():  # it ends with the process
            logger.error("the batch that runs has not ended in %.0f s; it is left", _CLOSE_SECONDS)

    def _lane(self, category: str) -> Lane:
        return self._lanes.get(category, Lane(category, None))

    def _limit(self, group: Hashable) -> int:
        """How many places a batch of a group has; of a group that is new to a server of others one."""
        since = time.monotonic() - _SERVED_SECONDS
        if any(other != group and pace.ended > since for other, pace in self._paces.items()):
            return self._paces[group].places if group in self._paces else 1
        return self._max_batch

    def _longest_batch(self) -> Counter[Hashable]:
        """The batch that would take longest of what waits, as the places of its group."""
        batches = {group: min(n, self._limit(group)) for group, n in self._queue.waiting().items()}
        longest = max(batches, key=lambda group: batches[group] * self._pace(group), default=None)
        return Counter() if longest is None else Counter({longest: batches[longest]})

    def _pace(self, group: Hashable) -> float:
        """Seconds per tile (an image is one, or several); of a group never computed, those of the slowest."""
        known = [self._paces[group]] if group in self._paces else self._paces.values()
        return max((pace.seconds for pace in known), default=0.0)

    def _expire(self, job: Job) -> None:
        self._withdraw(job)
        self._settle([(job, too_late())])

    def _withdraw(self, job: Job) -> None:
        with self._changed:
            self._queue.remove(job.lane, job)

    def _run(self) -> None:
        # Between turns nothing refers to the last batch, so that a model that was unloaded leaves memory.
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Wait for images and compute a batch of them; False once this is closed."""
        outcome = Outcome()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return False
                self._began = time.monotonic()
                self._queue.take(self._limit, self._running)
            compute(self._running, outcome)
        # Nothing may end this thread, not even SystemExit: all that comes later would wait for ever.
        except BaseException as error:
            logger.exception("a batch failed as a whole")
            with self._changed:
                jobs = self._running or self._queue.clear()
            outcome.answers += [(job, failure(error)) for job in jobs]
        self._look_at_device(outcome)
        self._finish(outcome)
        return True

    def _look_at_device(self, outcome: Outcome) -> None:
        """After a failure, see whether the device still computes: an error of CUDA may be there to stay."""
        if self.lost is not None:
            return
        for job, answer in outcome.answers:
            if isinstance(answer, Exception) and not isinstance(answer, Problem):
                device = job.detector.device
                if not computes(device):
                    self.lost = f"{device} does not compute any more: the server must be restarted."
                    logger.critical("%s", self.lost)
                return

    def _finish(self, outcome: Outcome) -> None:
        seconds = time.monotonic() - self._began
        size = len(outcome.computed)
        with self._changed:
            self._running = []
            self._idle_since = self._began + seconds
            counts = 0.0
            if size:
                tiles = sum(job.tiles for job in outcome.computed)
                pace = self._paces.setdefault(outcome.computed[0].lane.group, Pace(self._max_batch))
                counts = pace.add(tiles, seconds, self._idle_since)
            self._queue.settle(counts)
        self.batches += size > 0
        self.passes += outcome.passes
        self.images += size
        self._deliver(outcome.answers)
        if size and self._observer is not None:
            categories = [job.detector.manifest.category for job in outcome.computed]
            self._call(self._observer, size, seconds, categories)

    def _deliver(self, answers: _Answers) -> None:
        if answers:
            self._call(self._settle, answers)

    def _call(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(partial(function, *args, **kwargs))

    @staticmethod
    def _settle(answers: _Answers) -> None:
        for job, answer in answers:
            if job.future.done():
                continue
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)


def computes(device: torch.device) -> bool:
    """Whether a device still adds numbers. After some errors of CUDA it does not, for the process's life."""
    try:
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except torch.OutOfMemoryError:
        return True  # others have filled it, for the moment
    except Exception:
        logger.exception("%s", device)
        return False


def _closing() -> Problem:
    return Problem("draining", "The server is stopping. Send the image again, to another one.")
