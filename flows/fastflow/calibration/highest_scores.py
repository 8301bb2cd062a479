"""Highest-scoring calibration images, on which the threshold depends."""

from collections.abc import Sequence

import numpy as np

from flows.fastflow.calibration.conformal import compute_threshold

_MAX_NAMED = 5


def highest_scoring(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Return the names of the at most five highest-scoring calibration images, highest first."""
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return [names[i] for i in order[:_MAX_NAMED]]


def describe_highest_scoring(names: Sequence[str], scores: Sequence[float], target_fpr: float) -> str:
    """Name the highest-scoring images, and the threshold without the first, in a line.

    Args:
        names: from `highest_scoring`.
        scores: scores of all calibration images, in any order.
        target_fpr: see `flows.fastflow.calibration.conformal.compute_threshold`.

    Raises:
        ValueError: as `compute_threshold`.
    """
    ordered = sorted(scores, reverse=True)
    listed = ", ".join(f"{name} {score:.4g}" for name, score in zip(names, ordered, strict=False))
    line = f"highest of {len(ordered)} good images to calibrate: {listed}"
    if len(ordered) > 1:
        now, then = (compute_threshold(values, target_fpr) for values in (ordered, ordered[1:]))
        lost = ", and no longer certified" if now.certified and not then.certified else ""
        line += f"; without {names[0]} the threshold would be {then.reject:.4g}, not {now.reject:.4g}{lost}"
    advice = "Remove it only if it is defective, not because it scores high."
    return f"{line}. Is {names[0]} really good? {advice}"
