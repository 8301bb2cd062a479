"""Scores of an image, before a calibration."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ScoredImage:
    """Scores of one image.

    Attributes:
        score: image score, higher is more anomalous.
        score_map: (height, width) float32 anomaly map of the layout's size: that of the model's input, or in
            the image's aspect ratio if the geometry keeps it.
        image_part: share of the whole image in the score, with the learned part; None if a region of interest
            excludes it.
        statistics: per scale the mean and the standard deviation of the features over channels and positions,
            2 S numbers: an image's brightness and contrast as the model sees them, to detect drift. Features
            are the normalised ones, or the backbone's if layer norm would make all images equal.
        learned_part: share of the learned part in the score without a region of interest.
        description: (2 C,), see `learned.describe`; None if the scorer does not describe.
    """

    score: float
    score_map: NDArray[np.float32]
    image_part: float | None
    statistics: tuple[float, ...]
    learned_part: float = 0.0
    description: NDArray[np.float32] | None = None

    @property
    def raw_score(self) -> float:
        """Score under the name that `ModelOutput` requires."""
        return self.score


def feature_statistics(mean: Tensor, square: Tensor) -> list[tuple[float, ...]]:
    """Turn means and mean squares, (N, S), into each image's mean and deviation per scale."""
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return [tuple(row) for row in torch.stack((mean, deviation), 2).flatten(1).tolist()]
