"""Fit of the learned part of a score to a few reviewed defects.

Ten defects cannot tell a thousand weights. So the direction is a mean, not an optimum, and it is added to the
flow's score with a small weight. Every figure about good or defective images comes from images that were
left out of the fit (docs/research/learning.md).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MIN_DEFECTS: Final = 5
MIN_GOOD: Final = 20
# Smallest deviation of a description. A channel that is 0 in all good images would otherwise decide alone as
# soon as it is not. The mean of a map of 100 x 100 independent positions has this deviation.
MIN_DEVIATION: Final = 0.01

# Standard deviation of the learned part on good images, in those of their scores.
_FULL_WEIGHT = 0.75
# Of the mean part of left-out defects, in standard errors: at this the part has its full weight.
_CONVINCING = 2.0
_FOLDS = 5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LearnedFit:
    """Fitted learned part.

    Attributes:
        weights: (D,), of `LearnedPart`; zeros if the strength is 0.
        bias: of `LearnedPart`; good images have 0 on average.
        strength: share of the full weight, 0 to 1.
        left_out: (m,), part of each defect if it were left out of the fit.
    """

    weights: Array
    bias: float
    strength: float
    left_out: Array


def fit_learned(good: Array, scores: Array, defects: Array) -> LearnedFit:
    """Fit the direction from good images to defects, and its weight.

    With S the covariance of good images by Ledoit and Wolf, descriptions x become S^-1/4 x. The direction is
    the mean of the defects' unit vectors there, so a single strange defect does not decide. S^-1/2 would
    give S^-1 in all, the optimum for many defects; half of it is better with few.

    The part is scaled by its deviation on good images that were left out of S and its mean, in turn. Its
    weight grows with the part of left-out defects, and is 0 if this is no larger than for good images.

    Args:
        good: (n, D), descriptions of good images.
        scores: scores of good images, which may be others.
        defects: (m, D), descriptions of defects.

    Raises:
        ValueError: there are too few images, or a number is not finite.
    """
    if len(good) < MIN_GOOD or len(defects) < MIN_DEFECTS:
        raise ValueError(
            f"learning needs {MIN_DEFECTS} defects and {MIN_GOOD} good images; got {len(defects)} and "
            f"{len(good)}"
        )
    if not all(np.isfinite(x).all() for x in (good, scores, defects)):
        raise ValueError("a description or a score is not finite")
    mean = good.mean(0)
    deviation = np.maximum(good.std(0), MIN_DEVIATION)
    standard, strange = (good - mean) / deviation, (defects - mean) / deviation
    # Column 0 is for all defects, column j + 1 without defect j.
    directions = _directions(standard, strange)
    parts = np.empty((len(good), directions.shape[1]))
    folds = np.random.default_rng(0).permutation(len(good)) % _FOLDS
    for fold in range(_FOLDS):
        inside = folds == fold
        parts[inside] = standard[inside] @ _directions(standard[~inside], strange)
    spread = parts.std(0) + 1e-12
    left_out = (strange * directions[:, 1:].T).sum(1) / spread[1:]
    error = left_out.std(ddof=1) / np.sqrt(len(left_out)) + 1e-12
    strength = float(np.clip(left_out.mean() / error / _CONVINCING, 0, 1))
    scale = strength * _FULL_WEIGHT * float(scores.std())
    weights = scale / spread[0] * directions[:, 0] / deviation
    return LearnedFit(weights, -float(weights @ mean), strength, scale * left_out)


def _directions(good: Array, defects: Array) -> Array:
    """Compute the direction for all defects, and without each of them: (D, 1 + m)."""
    from sklearn.covariance import ledoit_wolf_shrinkage  # imported late: it takes a second

    shrinkage = ledoit_wolf_shrinkage(good, assume_centered=True)
    # There are often fewer images than numbers: outside their span, S is its smallest eigenvalue.
    _, singular, vectors = np.linalg.svd(good, full_matrices=False)
    smallest = max(shrinkage * np.square(good).mean(), 1e-6)
    values = (1 - shrinkage) * np.square(singular) / len(good) + smallest
    rest = smallest**-0.25

    def turn(rows: Array) -> Array:
        return np.asarray(rest * rows + (rows @ vectors.T * (values**-0.25 - rest)) @ vectors)

    turned = turn(defects)
    units = turned / (np.linalg.norm(turned, axis=1, keepdims=True) + 1e-12)
    total = units.sum(0)
    return turn(np.vstack((total, total - units))).T
