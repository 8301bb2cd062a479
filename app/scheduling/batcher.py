"""The model thread: images of all categories wait in one fair queue and are scored in batches."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.errors.problems import Problem
from app.scheduling.fair_queue import FairQueue, MovingAverage
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.geometry import PreparedImage
from flows.fastflow.inference.scored_image import ScoredImage

logger = logging.getLogger("flowgauge.batcher")

# Called in the model thread after a batch with its images, its seconds, and the category of each image.
BatchObserver = Callable[[int, float, Sequence[str]], None]

# A batch is to take no longer: images of other groups wait for it. Larger ones gain nothing.
_MOST_SECONDS: Final = 0.25
# For the batch that runs when the server stops: requests have had their time before.
_CLOSE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class BatchResult:
    """The scores of an image, the seconds until its batch began and that it took, and its images."""

    scored: ScoredImage
    waited: float
    took: float
    batch_size: int


@dataclass(frozen=True, eq=False)
class Job:
    """An image that waits for its scores; arguments as of `Batcher.score`."""

    detector: Detector
    prepared: PreparedImage
    region: NDArray[np.bool_] | None
    future: Future[BatchResult]
    submitted: float  # time.monotonic()

    @property
    def category(self) -> str:
        """The model's."""
        return self.detector.manifest.category

    @property
    def tiles(self) -> int:
        """Rows of a batch that the image takes."""
        return len(self.prepared.layout)

    @property
    def is_large(self) -> bool:
        """Whether the image needs passes of the backbone to itself."""
        return self.tiles > self.detector.scorer.chunk

    @cached_property
    def group(self) -> Hashable:
        """Only jobs of one group share a batch: same backbone, same input size."""
        extractor = self.detector.scorer.extractor
        # By name, too: another architecture may have tensors of the same shapes, and pad or scale otherwise.
        backbone = extractor.name, extractor.weights_sha256, extractor.out_indices
        return backbone, extractor.mean, extractor.std, self.detector.manifest.input_size


class Batcher:
    """Scores images in one thread.

    A batch holds images of any categories whose models share the backbone and the input size. Nothing waits
    for a batch to fill: while one is computed, the next one gathers. Categories share the thread by time, see
    `FairQueue`. How much may wait is bounded by the caller, see `Admission`.

    Args:
        max_batch: images scored together, at most; one of several tiles counts as so many.
        observer: called after each batch.

    Attributes:
        lost: why the device computes no more, for only a new process helps then; None while it does.
        passes: batches so far, the one that runs included; each is a pass of a backbone.
    """

    def __init__(self, max_batch: int, observer: BatchObserver | None = None) -> None:
        self._max_batch = max_batch
        self._observer = observer
        self._changed = threading.Condition()  # guards all that follows
        self._queue = FairQueue[Job]()
        self._running: list[Job] = []
        self._began = 0.0
        self._closed = False
        self._batch_seconds = MovingAverage()
        self.lost: str | None = None
        self.passes = 0
        # A daemon: a server whose start fails after this must be able to end.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    async def score(
        self, detector: Detector, prepared: PreparedImage, region: NDArray[np.bool_] | None = None
    ) -> BatchResult:
        """Score an image, or raise what the model raised over it, computed alone.

        If this is cancelled before the image's batch begins, it is never computed.

        Args:
            detector: the model.
            prepared: from `detector.prepare`.
            region: the region of interest, (height, width) of its map; by default everything.
        """
        job = Job(detector, prepared, region, Future(), time.monotonic())
        with self._changed:
            self._queue.put(job.category, job)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.future.cancel()
            with self._changed:
                self._queue.remove(job.category, job)
            raise

    @property
    def pending(self) -> int:
        """Images that wait or are being scored."""
        with self._changed:
            return len(self._queue) + len(self._running)

    def require_alive(self) -> None:
        """Raise the problem model-loading where nothing is answered until the process is restarted."""
        if self.lost is not None:
            raise Problem("model-loading", self.lost)

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
        """Finish the batch that runs and end the thread; what still waits is never computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)  # if it is not enough, the batch ends with the process

    def _remaining(self) -> float:
        expected = sum(self._queue.cost(job.category) for job in self._running)
        return max(0.0, expected - (time.monotonic() - self._began))

    def _run(self) -> None:
        # Between batches nothing refers to the last one, so that an unloaded model leaves memory.
        while self._run_batch():
            pass

    def _run_batch(self) -> bool:
        """Wait for images and score a batch of them. Return False once this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return False
            self._began = time.monotonic()
            self._take()
        jobs = [job for job in self._running if job.future.set_running_or_notify_cancel()]
        jobs.sort(key=lambda job: id(job.detector))  # those of a model side by side
        results = self._score(jobs) if jobs else []
        seconds = time.monotonic() - self._began
        self._settle(jobs, seconds)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(BatchResult(result, self._began - job.submitted, seconds, len(jobs)))
        return True

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

    def _score(self, jobs: Sequence[Job]) -> list[ScoredImage | Exception]:
        """Score jobs together; where that fails, one by one, so that an image fails alone."""
        self.passes += 1
        try:
            return [*_score_together(jobs)]
        except Exception as error:
            if len(jobs) == 1:
                device = jobs[0].detector.device
                if self.lost is None and not can_compute(device):
                    self.lost = f"{device} does not compute any more: the server must be restarted."
                    logger.critical("%s", self.lost)
                return [error]
            logger.warning("a batch of %d failed; its images are tried one by one", len(jobs), exc_info=True)
        return [result for job in jobs for result in self._score([job])]

    def _settle(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count the time of the jobs that were computed; those that nobody waited for cost nothing."""
        tiles = sum(job.tiles for job in jobs)
        with self._changed:
            for job in self._running:
                self._queue.settle(job.category, seconds * job.tiles / tiles if job in jobs else None)
            self._running = []
            if jobs:
                self._batch_seconds.add(seconds)
        if jobs and self._observer is not None:
            self._observer(len(jobs), seconds, [job.category for job in jobs])


@torch.inference_mode()
def _score_together(jobs: Sequence[Job]) -> list[ScoredImage]:
    """Score jobs of one group, those of a model side by side; or a large one alone."""
    scorer = jobs[0].detector.scorer
    if jobs[0].is_large:
        [job] = jobs
        return scorer.score_prepared([job.prepared], [job.region])
    maps = scorer.features([tile for job in jobs for tile in job.prepared.tiles()])
    by_model = [(detector, [*own]) for detector, own in groupby(jobs, key=lambda job: job.detector)]
    ends = accumulate((sum(job.tiles for job in own) for _, own in by_model), initial=0)
    scored: list[ScoredImage] = []
    for (detector, own), (start, end) in zip(by_model, pairwise(ends), strict=True):
        regions, layouts = [job.region for job in own], [job.prepared.layout for job in own]
        rows = [scale[start:end] for scale in maps]
        scored += detector.scorer.score_features(rows, regions, layouts)
    return scored


def can_compute(device: torch.device) -> bool:
    """Whether a device still adds numbers: after some errors of CUDA it never does."""
    try:
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except torch.OutOfMemoryError:
        return True  # others have filled it, for the moment
    except Exception:
        logger.exception("%s", device)
        return False
