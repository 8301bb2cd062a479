"""The model thread, which scores images of all categories from one fair queue in batches."""

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

# Called in the model thread after a batch with the number of images, the seconds and each image's category.
BatchObserver = Callable[[int, float, Sequence[str]], None]

# Target limit of a batch, because images of other groups wait for it. Larger batches gain nothing.
_MAX_SECONDS: Final = 0.25
# Wait for the current batch at the stop. Requests had their own time before.
_CLOSE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class BatchResult:
    """The scores of an image, with the seconds it waited, and the seconds and size of its batch."""

    scored: ScoredImage
    waited: float
    took: float
    batch_size: int


@dataclass(frozen=True, eq=False)
class ScoringJob:
    """An image in the queue; arguments as for `Batcher.score`."""

    detector: Detector
    prepared: PreparedImage
    region: NDArray[np.bool_] | None
    future: Future[BatchResult]
    submitted: float  # time.monotonic()

    @property
    def category(self) -> str:
        return self.detector.manifest.category

    @property
    def tiles(self) -> int:
        """Number of rows of a batch that the image takes."""
        return len(self.prepared.layout)

    @property
    def is_large(self) -> bool:
        """True if the image needs its own passes of the backbone."""
        return self.tiles > self.detector.scorer.chunk

    @cached_property
    def group(self) -> Hashable:
        """Key of jobs that can share a batch: same backbone, same input size."""
        extractor = self.detector.scorer.extractor
        # With the name: another architecture may have tensors of the same shapes but pad or scale
        # differently.
        backbone = extractor.name, extractor.weights_sha256, extractor.out_indices
        return backbone, extractor.mean, extractor.std, self.detector.manifest.input_size


class Batcher:
    """Scores images in one thread.

    A batch can mix categories whose models share the backbone and the input size. No image waits for a batch
    to fill: the next batch forms while one is computed. Categories share the thread by time, see `FairQueue`.
    The caller limits the queue, see `Admission`.

    Args:
        max_batch: limit on images scored together; each tile counts as one.
        observer: called after each batch.

    Attributes:
        lost: the reason why the device no longer computes, after which only a restart helps; None while it
            does.
        passes: number of batches so far, including the current one; each is a pass of a backbone.
    """

    def __init__(self, max_batch: int, observer: BatchObserver | None = None) -> None:
        self._max_batch = max_batch
        self._observer = observer
        self._changed = threading.Condition()  # guards the attributes below
        self._queue = FairQueue[ScoringJob]()
        self._running: list[ScoringJob] = []
        self._began = 0.0
        self._closed = False
        self._batch_seconds = MovingAverage()
        self.lost: str | None = None
        self.passes = 0
        # A daemon, so that a server whose start fails can exit.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    async def score(
        self, detector: Detector, prepared: PreparedImage, region: NDArray[np.bool_] | None = None
    ) -> BatchResult:
        """Score an image, or raise the model's error for this image alone.

        An image cancelled before its batch starts is never computed.

        Args:
            prepared: from `detector.prepare`.
            region: the region of interest, (height, width) of its map; by default the whole map.
        """
        job = ScoringJob(detector, prepared, region, Future(), time.monotonic())
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
        """Number of images that wait or are being scored."""
        with self._changed:
            return len(self._queue) + len(self._running)

    def require_alive(self) -> None:
        """Raise the problem model-loading if the device is lost until a restart."""
        if self.lost is not None:
            raise Problem("model-loading", self.lost)

    def expected_wait(self) -> float:
        """Estimate the seconds until all waiting and current images are scored."""
        with self._changed:
            return self._remaining() + sum(self._queue.work().values())

    def expected_seconds(self, category: str, images: int, held: Mapping[str, int]) -> float:
        """Estimate the seconds until `images` more images of a category would be scored.

        `held` counts the images that the service holds, by category. Images in the queue count twice, to
        allow for decoding, drawing and sending. The estimate is 0 without any images: only an accepted image
        can correct a wrong estimate.
        """
        with self._changed:
            if not (self._queue or self._running or any(held.values())):
                return 0.0
            before = self._queue.work_before(category, images, held)
            # The answer comes at the end of the batch, which other images fill up.
            batch = min(sum(self._queue.work(held).values()), self._batch_seconds.value or 0.0)
            return self._remaining() + before + batch

    def close(self) -> None:
        """Finish the current batch and end the thread; waiting images are never computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)  # a longer batch ends with the process

    def _remaining(self) -> float:
        expected = sum(self._queue.cost(job.category) for job in self._running)
        return max(0.0, expected - (time.monotonic() - self._began))

    def _run(self) -> None:
        # A function per batch: between batches, no local refers to the last one, so unloaded models are
        # freed.
        while self._run_batch():
            pass

    def _run_batch(self) -> bool:
        """Wait for images and score a batch. Return False once the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return False
            self._began = time.monotonic()
            self._take()
        jobs = [job for job in self._running if job.future.set_running_or_notify_cancel()]
        jobs.sort(key=lambda job: id(job.detector))  # group by model
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

        It starts with the lane whose turn it is and adds lanes of the same group, in their order. Lanes ahead
        of those of other groups are left out: they would use the time of other groups.
        """
        heads = self._queue.heads()
        group = next(iter(heads.values())).group
        others = (self._queue.start(name) for name, job in heads.items() if job.group != group)
        latest_start = min(others, default=math.inf) + _MAX_SECONDS
        tiles, seconds = 0, 0.0
        while own := {name: job for name, job in heads.items() if job.group == group}:
            name, job = next(iter(own.items()))
            tiles += job.tiles
            seconds += self._queue.cost(name)
            is_full = tiles > self._max_batch or seconds > _MAX_SECONDS
            is_ahead = self._queue.start(name) > latest_start
            is_alone = job.is_large or any(other.is_large for other in self._running)
            if self._running and (is_full or is_ahead or is_alone):
                return
            self._running.append(self._queue.pop(name))
            heads = self._queue.heads()

    def _score(self, jobs: Sequence[ScoringJob]) -> list[ScoredImage | Exception]:
        """Score jobs together; on an error one by one, so that only the faulty image fails."""
        self.passes += 1
        try:
            return [*_score_together(jobs)]
        except Exception as error:
            if len(jobs) == 1:
                device = jobs[0].detector.device
                if self.lost is None and not can_compute(device):
                    self.lost = f"{device} no longer computes: restart the server."
                    logger.critical("%s", self.lost)
                return [error]
            logger.warning("a batch of %d failed; trying its images one by one", len(jobs), exc_info=True)
        return [result for job in jobs for result in self._score([job])]

    def _settle(self, jobs: Sequence[ScoringJob], seconds: float) -> None:
        """Count the time of the computed jobs; cancelled jobs cost nothing."""
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
def _score_together(jobs: Sequence[ScoringJob]) -> list[ScoredImage]:
    """Score jobs of one group, sorted by model; or one large job."""
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
    """Return True if a device still adds numbers: after some CUDA errors it never does."""
    try:
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except torch.OutOfMemoryError:
        return True  # temporary: other processes use its memory
    except Exception:
        logger.exception("%s", device)
        return False
