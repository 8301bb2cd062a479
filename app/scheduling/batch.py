"""Images that are scored together: one pass of the backbone, then each model's head over its own."""

import asyncio
import logging
import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from flows.fastflow.detector import Detector
from flows.fastflow.geometry import Prepared
from flows.fastflow.scored import Scored

logger = logging.getLogger("flowgauge.batch")


@dataclass(frozen=True)
class BatchResult:
    """The scores of an image, the seconds until its batch began and that it took, and its images."""

    scored: Scored
    waited: float
    took: float
    batch_size: int


@dataclass(frozen=True, eq=False)
class Job:
    """An image that waits for its scores; arguments as of `Batcher.score`."""

    detector: Detector
    prepared: Prepared
    region: NDArray[np.bool_] | None
    deadline: float | None
    future: "asyncio.Future[BatchResult]"
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
        return (
            extractor.name,
            extractor.weights_sha256,
            extractor.out_indices,
            extractor.mean,
            extractor.std,
            self.detector.manifest.input_size,
        )

    def is_expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and self.deadline <= time.monotonic()

    def is_wanted(self) -> bool:
        """Whether somebody still waits for the answer, and in time."""
        return not (self.future.done() or self.is_expired())


class Batch:
    """Jobs of one group, a large one alone, scored together.

    An image that fails fails alone: all are then tried one by one.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = sorted(jobs, key=lambda job: id(job.detector))  # those of a model side by side
        self.passes = 0  # of the backbone so far

    @torch.inference_mode()
    def compute(self) -> list[tuple[Job, Scored | Exception]]:
        """Score the jobs. One that nobody waits for any more may be left out."""
        try:
            return [*zip(self.jobs, self._score(self.jobs), strict=True)]
        except Exception as error:
            number = len(self.jobs)
            if number == 1:
                return [(self.jobs[0], error)]
            logger.warning("a batch of %d failed; its images are tried one by one", number, exc_info=True)
        return [(job, self._score_alone(job)) for job in self.jobs if job.is_wanted()]

    def _score_alone(self, job: Job) -> Scored | Exception:
        try:
            return self._score([job])[0]
        except Exception as error:
            return error

    def _score(self, jobs: Sequence[Job]) -> list[Scored]:
        scorer = jobs[0].detector.scorer
        if jobs[0].is_large:
            [job] = jobs
            self.passes += math.ceil(job.tiles / scorer.chunk)
            return scorer.score_prepared([job.prepared], [job.region])
        self.passes += 1
        maps = scorer.features([tile for job in jobs for tile in job.prepared.tiles()])
        by_model = [(detector, [*own]) for detector, own in groupby(jobs, key=lambda job: job.detector)]
        ends = accumulate((sum(job.tiles for job in own) for _, own in by_model), initial=0)
        scored: list[Scored] = []
        for (detector, own), (start, end) in zip(by_model, pairwise(ends), strict=True):
            regions, layouts = [job.region for job in own], [job.prepared.layout for job in own]
            rows = [scale[start:end] for scale in maps]
            scored += detector.scorer.score_features(rows, regions, layouts)
        return scored


def computes(device: torch.device) -> bool:
    """Whether a device still adds numbers."""
    try:
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except torch.OutOfMemoryError:
        return True  # others have filled it, for the moment
    except Exception:
        logger.exception("%s", device)
        return False
