"""What a model finds in a picture, by one head or by several."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow import finish, score
from flows.fastflow.regions import Regions
from flows.fastflow.score import ScoreRule

# Per picture and scale which positions count, (T, H_i, W_i); None for a picture of which all do.
Counts: TypeAlias = Sequence[Sequence[NDArray[np.bool_]] | None]


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
    flow: Sequence[Tensor],
    maps: Iterable[NDArray[np.float32]],
    picture: Tensor,
    statistics: Sequence[tuple[float, ...]],
    rule: ScoreRule,
    counts: Counts,
    masks: Regions,
) -> list[Scored]:
    """What one head finds in N pictures of as many tiles.

    Args:
        flow: per scale (N, T, H_i, W_i), energies by the flow in the T tiles of each.
        maps: of each, (height, width); they are written over.
        picture: (N, S'), energies of each as a whole.
        statistics: of each, see `Scored`.
        rule: how scores are taken.
        counts: of each which positions count, see `counting.counted`.
        masks: of each its region of interest, or None.
    """
    parts = _positions_parts(flow, rule, counts)
    wholes = _picture_parts(picture, rule, masks)
    found = []
    for part, whole, score_map, row, mask in zip(parts, wholes, maps, statistics, masks, strict=True):
        if mask is not None:
            score_map[~mask] = 0
        total = part + (whole or 0.0)
        found.append(Scored(total, (total,), score_map, whole, row))
    return found


def _positions_parts(flow: Sequence[Tensor], rule: ScoreRule, counts: Counts) -> list[float]:
    if _on_cpu(flow[0]):
        arrays = [q.numpy() for q in flow]
        return [finish.positions_part([q[i] for q in arrays], rule, which) for i, which in enumerate(counts)]
    if all(which is None for which in counts):
        return score.positions_part(flow, rule).tolist()
    everything = [np.ones(q.shape[1:], np.bool_) for q in flow]
    of_scales = zip(*(everything if which is None else which for which in counts), strict=True)
    inside = [torch.from_numpy(np.stack(of_scale)).to(flow[0].device) for of_scale in of_scales]
    return score.positions_part(flow, rule, inside).tolist()


def _picture_parts(picture: Tensor, rule: ScoreRule, masks: Regions) -> list[float | None]:
    """What whole pictures add to their scores; None where a region leaves it out."""
    if _on_cpu(picture):
        parts = [finish.picture_part(energies, rule) for energies in picture.numpy()]
    else:
        parts = score.picture_part(picture, rule).tolist()
    return [x if mask is None or mask.all() else None for x, mask in zip(parts, masks, strict=True)]


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"


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
