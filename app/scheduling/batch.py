"""Images that are scored together: one pass of the backbone, then each model's head over its own."""

import logging
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
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


@torch.inference_mode()
def score_together(jobs: Sequence[Job]) -> list[Scored]:
    """Score jobs of one group, those of a model side by side; or a large one alone."""
    scorer = jobs[0].detector.scorer
    if jobs[0].is_large:
        [job] = jobs
        return scorer.score_prepared([job.prepared], [job.region])
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
    """Whether a device still adds numbers: after some errors of CUDA it never does."""
    try:
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except torch.OutOfMemoryError:
        return True  # others have filled it, for the moment
    except Exception:
        logger.exception("%s", device)
        return False
