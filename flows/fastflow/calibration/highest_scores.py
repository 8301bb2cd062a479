"""Highest-scoring calibration images, on which the threshold depends."""

import math
from collections.abc import Sequence

import numpy as np

from flows.fastflow.calibration.conformal import compute_threshold, describe_promise, threshold_rank

_MAX_NAMED = 5


def highest_scoring(scores: Sequence[float]) -> list[int]:
    """Return the indices of the at most five highest scores, highest first."""
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return [int(i) for i in order[:_MAX_NAMED]]


def describe_highest_scoring(names: Sequence[str], scores: Sequence[float]) -> str:
    """Name the highest-scoring calibration images in a line, and say how to exclude one.

    Args:
        names: names of the images that `highest_scoring` selects.
        scores: scores of all calibration images, in any order.
    """
    ordered = sorted(scores, reverse=True)
    listed = ", ".join(f"{name} {score:.4g}" for name, score in zip(names, ordered, strict=False))
    return (
        f"highest of {len(ordered)} good images to calibrate: {listed}. If one shows a defect, move its file "
        "out of the folder and run the command again. A good part stays, however high its score."
    )


def describe_recommended_rate(scores: Sequence[float], target_fpr: float) -> str | None:
    """Recommend a rate in a line if a single image sets the threshold; None if it does not.

    The recommended rate is the lowest whose threshold is the second-highest score, 2 / (n + 1).

    Args:
        scores: scores of the calibration images, in any order.
        target_fpr: the rate in force.

    Raises:
        ValueError: as `flows.fastflow.calibration.conformal.compute_threshold`.
    """
    n = len(scores)
    if n < 4 or threshold_rank(n, target_fpr) > 1:  # 2 / (n + 1) of fewer would exceed the largest setting
        return None
    rate = math.ceil(2 / (n + 1) * 10_000) / 10_000
    now, then = (compute_threshold(scores, value).reject for value in (target_fpr, rate))
    return (
        f"recommended: target_fpr {rate:g}. Now a single image sets the threshold, and defects below its "
        f"score pass. The threshold would be {then:.4g} instead of {now:.4g}, and reject "
        f"{describe_promise(n, rate)}."
    )
