"""Computing a batch: the backbone once over all of its images, then each category's head over its own.

An image that fails fails alone: what failed together is tried again one by one.
"""

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.fair_queue import Lane
from app.problems import Problem
from flows.fastflow.detector import Detector, Prediction
from flows.fastflow.geometry import Prepared

logger = logging.getLogger("flowgauge.batch")


@dataclass(frozen=True)
class Batched:
    """What came of an image.

    Attributes:
        prediction: of the model.
        waited: seconds until its batch began.
        took: seconds that its batch took.
        batch_size: images in the batch.
    """

    prediction: Prediction
    waited: float
    took: float
    batch_size: int


@dataclass(frozen=True, eq=False)
class Job:
    """An image that waits for its prediction.

    Attributes:
        detector: the model.
        prepared: the picture as the model takes it.
        region: the region of interest, (height, width) of its map, or None for everything.
        deadline: time.monotonic() from which nobody wants the answer, or None.
        future: where the answer goes; done before that, nobody waits for one.
        submitted: time.monotonic().
    """

    detector: Detector
    prepared: Prepared
    region: NDArray[np.bool_] | None
    deadline: float | None
    future: asyncio.Future[Batched]
    submitted: float

    @property
    def tiles(self) -> int:
        """How many rows of a batch the image takes."""
        return len(self.prepared.layout)

    @property
    def lane(self) -> Lane:
        """Its category; and what can be computed together: same backbone, same input size."""
        extractor = self.detector.scorer.extractor
        # By name, too: another architecture may have tensors of the same shapes, and pad or scale otherwise.
        backbone = (
            extractor.name,
            extractor.weights_sha256,
            extractor.out_indices,
            extractor.mean,
            extractor.std,
        )
        group = backbone, self.detector.manifest.input_size
        return Lane(self.detector.manifest.category, group)


@dataclass
class Outcome:
    """What came of a batch.

    Attributes:
        answers: for every image that somebody waited for.
        computed: the images that were, those that failed too.
        passes: of the backbone; 1, if none had to be repeated and no image has more tiles than are computed
            together, and 0 if nothing was computed.
    """

    answers: list[tuple[Job, Batched | Exception]] = field(default_factory=list)
    computed: list[Job] = field(default_factory=list)
    passes: int = 0


@torch.inference_mode()
def compute(jobs: Iterable[Job], outcome: Outcome) -> None:
    """Compute a batch whose jobs have one backbone and one input size.

    Jobs whose answer nobody waits for, or whose deadline has passed, are left out.

    Args:
        jobs: the batch.
        outcome: where the answers are added.
    """
    start = time.monotonic()
    heads: dict[Detector, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.deadline is not None and job.deadline <= start:
            outcome.answers.append((job, too_late()))
        elif not job.future.done():
            heads[job.detector].append(job)
    live = [job for own in heads.values() for job in own]
    if not live:
        return
    scorer = live[0].detector.scorer
    large = [job for job in live if job.tiles > scorer.chunk]
    if large and len(live) > 1:
        # Each fills passes of its own: the others are answered before it.
        compute([job for job in live if job.tiles <= scorer.chunk], outcome)
        for job in large:
            compute([job], outcome)
        return
    results: list[Prediction | Exception]
    if large:
        outcome.passes += math.ceil(live[0].tiles / scorer.chunk)
        results = [_in_chunks(live[0])]
    else:
        outcome.passes += 1
        try:
            maps = scorer.features([tile for job in live for tile in job.prepared.tiles()])
        except Exception as error:
            if len(live) > 1:
                logger.warning(
                    "a batch of %d failed; its images are tried one by one", len(live), exc_info=True
                )
                for job in live:
                    compute([job], outcome)
                return
            results = [error]
        else:
            results, row = [], 0
            for detector, own in heads.items():
                rows = sum(job.tiles for job in own)
                results += _head(detector, [m[row : row + rows] for m in maps], own)
                row += rows
    took = time.monotonic() - start
    outcome.computed += live
    for job, result in zip(live, results, strict=True):
        if isinstance(result, Exception):
            outcome.answers.append((job, failure(result)))
        else:
            batched = Batched(result, start - job.submitted, took, len(live))
            outcome.answers.append((job, batched))


def _in_chunks(job: Job) -> Prediction | Exception:
    try:
        return job.detector.predict_prepared([job.prepared], [job.region])[0]
    except Exception as error:
        return error


def _head(detector: Detector, maps: Sequence[Tensor], jobs: Sequence[Job]) -> list[Prediction | Exception]:
    try:
        regions, layouts = [job.region for job in jobs], [job.prepared.layout for job in jobs]
        return [*detector.predict_features(maps, regions, layouts)]
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        logger.warning(
            "%d images of %s failed; they are tried one by one",
            len(jobs),
            detector.manifest.category,
            exc_info=True,
        )
    ends = accumulate((job.tiles for job in jobs), initial=0)
    return [
        _head(detector, [m[start:end] for m in maps], [job])[0]
        for (start, end), job in zip(pairwise(ends), jobs, strict=True)
    ]


def failure(error: BaseException) -> Exception:
    """What a caller may be given: of errors that would end a coroutine or the process, one that does not."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the model ended with {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def too_late() -> Problem:
    """The answer to an image whose deadline has passed."""
    return Problem("deadline-exceeded", "The deadline passed while the image waited, or was being computed.")
