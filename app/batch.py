"""Computing a batch: the backbone once over all of its images, then each category's head over its own.

An image that fails fails alone: what failed together is tried again one by one.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.fair_queue import Lane
from app.problems import Problem
from flows.fastflow.detector import Detector, Prediction

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
        prepared: (height, width, 3) uint8, at the model's input size.
        region: the region of interest, (height, width), or None for everything.
        deadline: time.monotonic() from which nobody wants the answer, or None.
        future: where the answer goes; done before that, nobody waits for one.
        submitted: time.monotonic().
    """

    detector: Detector
    prepared: NDArray[np.uint8]
    region: NDArray[np.bool_] | None
    deadline: float | None
    future: asyncio.Future[Batched]
    submitted: float

    @property
    def lane(self) -> Lane:
        """Its category; and what can be computed together: same backbone, same input size."""
        extractor = self.detector.scorer.extractor
        group = extractor.weights_sha256, extractor.out_indices, self.detector.manifest.input_size
        return Lane(self.detector.manifest.category, group)


@dataclass
class Outcome:
    """What came of a batch.

    Attributes:
        answers: for every image that somebody waited for.
        computed: the images that were, those that failed too.
        passes: of the backbone; 1, if none had to be repeated, and 0 if nothing was computed.
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
    outcome.passes += 1
    try:
        maps = live[0].detector.scorer.features([job.prepared for job in live])
    except Exception as error:
        if len(live) > 1:
            logger.warning("a batch of %d failed; its images are tried one by one", len(live), exc_info=True)
            for job in live:
                compute([job], outcome)
            return
        results: list[Prediction | Exception] = [error]
    else:
        results = []
        for detector, own in heads.items():
            n = len(results)
            results += _head(detector, [m[n : n + len(own)] for m in maps], own)
    took = time.monotonic() - start
    outcome.computed += live
    for job, result in zip(live, results, strict=True):
        if isinstance(result, Exception):
            outcome.answers.append((job, failure(result)))
        else:
            batched = Batched(result, start - job.submitted, took, len(live))
            outcome.answers.append((job, batched))


def _head(detector: Detector, maps: Sequence[Tensor], jobs: Sequence[Job]) -> list[Prediction | Exception]:
    try:
        return [*detector.predict_features(maps, [job.region for job in jobs])]
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        logger.warning(
            "%d images of %s failed; they are tried one by one",
            len(jobs),
            detector.manifest.category,
            exc_info=True,
        )
    alone = ([m[i : i + 1] for m in maps] for i in range(len(jobs)))
    return [_head(detector, m, [job])[0] for m, job in zip(alone, jobs, strict=True)]


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
