"""What a model finds in a picture, by one head or by several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """What a model finds in one picture.

    Attributes:
        score: image score, higher is more anomalous; of several heads the mean of theirs.
        by_head: the score by each head.
        score_map: (height, width) float32 anomaly map, likewise; of the layout's size: that of the model's
            input, or in the picture's aspect ratio where the geometry keeps it.
        picture: what the whole picture adds to the score, likewise; None where a region of interest leaves it
            out.
        statistics: per scale the mean and the standard deviation of the features over channels and positions,
            2 S numbers: a picture's brightness and contrast as the model sees them, to tell drift by. Of the
            normalised features; of the backbone's where layer norm would make every picture's the same.
    """

    score: float
    by_head: tuple[float, ...]
    score_map: NDArray[np.float32]
    picture: float | None
    statistics: tuple[float, ...]


def by_one_head(
    finished: Sequence[tuple[float, NDArray[np.float32]]],
    pictures: Sequence[float | None],
    statistics: Sequence[tuple[float, ...]],
) -> list[Scored]:
    """Of each picture its score with its map, and what else `Scored` has, put together."""
    found = zip(finished, pictures, statistics, strict=True)
    return [Scored(score, (score,), score_map, whole, row) for (score, score_map), whole, row in found]


def statistics_of(mean: Tensor, square: Tensor) -> list[tuple[float, ...]]:
    """Of means and mean squares, (N, S), for each picture mean and deviation of each scale."""
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return [tuple(row) for row in torch.stack((mean, deviation), 2).flatten(1).tolist()]


def by_all_heads(of_each: Sequence[Scored]) -> Scored:
    """What several heads find in one picture: their means."""
    if len(of_each) == 1:
        return of_each[0]
    by_head = tuple(one.score for one in of_each)
    score_map: NDArray[np.float32] = np.mean([one.score_map for one in of_each], axis=0, dtype=np.float32)
    wholes = [one.picture for one in of_each if one.picture is not None]
    picture = sum(wholes) / len(wholes) if wholes else None
    statistics = np.mean([one.statistics for one in of_each], axis=0).tolist()
    return Scored(sum(by_head) / len(by_head), by_head, score_map, picture, tuple(statistics))
