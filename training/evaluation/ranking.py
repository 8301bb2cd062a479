"""Ranking metrics of a test set: scores and maps of any model against the ground truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.sample import Sample
from training.evaluation.ground_truth import read_ground_truth
from training.evaluation.metrics.image_metrics import (
    F1Max,
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_recall,
)
from training.evaluation.metrics.pixel_metrics import PixelFigures, PixelMetrics


@dataclass(frozen=True)
class RankingFigures:
    """Metrics of how well scores and maps separate good from defective parts.

    Attributes:
        image_auroc, image_average_precision, image_f1_max: on raw scores; None if the images are all
            good or all defective.
        recall_at_1_percent: share of defects found if 1 % of the good test images may be rejected.
        pixels: on raw map values at the map's size; None if no defect has a mask, or no pixel is good.
        masked: number of defective images with a mask; pixels of the others do not count.
    """

    image_auroc: float | None
    image_average_precision: float | None
    image_f1_max: F1Max | None
    recall_at_1_percent: float | None
    pixels: PixelFigures | None
    masked: int


class RankingMetrics:
    """Accumulates scores and maps image by image, without keeping the maps.

    Pixels count if their truth is known: in good parts, and in defective parts with a non-empty mask for each
    kind of defect.
    """

    def __init__(self) -> None:
        self._defective: list[bool] = []
        self._scores: list[float] = []
        self._masked = 0
        self._good_pixels = False  # True once one was added
        self._pixels = PixelMetrics()

    def add(
        self, sample: Sample, image_size: tuple[int, int], score: float, score_map: NDArray[np.float32]
    ) -> None:
        """Add one image.

        Args:
            score_map: (h, w), its map.

        Raises:
            ImageError, DatasetError: a mask cannot be read or has another size; it is named.
        """
        self._defective.append(sample.defect is not None)
        self._scores.append(score)
        mask = read_ground_truth(sample, image_size, (score_map.shape[0], score_map.shape[1]))
        if sample.defect is None or mask.any():
            self._masked += bool(mask.any())
            self._good_pixels |= not mask.all()
            self._pixels.update(score_map, mask)

    def compute(self) -> RankingFigures:
        """Compute the metrics of all images added so far."""
        truth, scores = self._defective, self._scores
        both = len(set(truth)) == 2
        return RankingFigures(
            image_auroc=image_auroc(truth, scores) if both else None,
            image_average_precision=image_average_precision(truth, scores) if both else None,
            image_f1_max=image_f1_max(truth, scores) if both else None,
            recall_at_1_percent=image_recall(truth, scores, 0.01) if both else None,
            pixels=self._pixels.compute() if self._masked and self._good_pixels else None,
            masked=self._masked,
        )
