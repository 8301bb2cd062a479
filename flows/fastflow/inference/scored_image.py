"""What a model finds in a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ScoredImage:
    """What a model finds in one picture.

    Attributes:
        score: image score, higher is more anomalous.
        score_map: (height, width) float32 anomaly map of the layout's size: that of the model's input, or in
            the picture's aspect ratio where the geometry keeps it.
        image_part: what the whole picture adds to the score; None where a region of interest leaves it out.
        statistics: per scale the mean and the standard deviation of the features over channels and positions,
            2 S numbers: a picture's brightness and contrast as the model sees them, to tell drift by. Of the
            normalised features; of the backbone's where layer norm would make every picture's the same.
    """

    score: float
    score_map: NDArray[np.float32]
    image_part: float | None
    statistics: tuple[float, ...]

    @property
    def raw_score(self) -> float:
        """The score, under the name that a calibration asks for."""
        return self.score


def build_scored_images(
    finished: Sequence[tuple[float, NDArray[np.float32]]],
    pictures: Sequence[float | None],
    statistics: Sequence[tuple[float, ...]],
) -> list[ScoredImage]:
    """Of each picture its score with its map, and what else `ScoredImage` has, put together."""
    found = zip(finished, pictures, statistics, strict=True)
    return [ScoredImage(score, score_map, whole, row) for (score, score_map), whole, row in found]


def feature_statistics(mean: Tensor, square: Tensor) -> list[tuple[float, ...]]:
    """Of means and mean squares, (N, S), for each picture mean and deviation of each scale."""
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return [tuple(row) for row in torch.stack((mean, deviation), 2).flatten(1).tolist()]
