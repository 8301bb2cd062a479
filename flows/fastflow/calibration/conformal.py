"""What a score means: conformal p-values, and the threshold that keeps a promised rate.

The scores s_1, ..., s_n of n good images that no training has seen are the calibration set. For a
good image whose score s is exchangeable with them,

    p(s) = (1 + #{i : s_i >= s}) / (n + 1)

is at most alpha with probability at most alpha, for every alpha and every law of the scores.
Rejecting at p <= alpha is the same as rejecting where s exceeds the l-th largest calibration
score, l = floor(alpha (n + 1)). Given one calibration set the false-reject rate is not alpha but a
draw from Beta(l, n + 1 - l) (for a continuous law; ties only lower it), whose mean is l / (n + 1).

Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Vovk, "Conditional
validity of inductive conformal predictors", 2012, arXiv:1209.2673 (the Beta law).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ConformalThreshold:
    """Reject where score > ``reject``.

    ``certified`` says whether the false-reject rate is at most ``target_fpr``, averaged over
    calibration sets. It is not where n < 1 / target_fpr - 1: then ``reject`` is the largest calibration
    score. The rate ``achievable_fpr`` is promised in any case.
    """

    reject: float
    target_fpr: float
    certified: bool
    achievable_fpr: float
    n_calibration: int


def p_value(score: float, calibration: Sequence[float] | NDArray[Any]) -> float:
    """The share of good images that would score at least ``score``, in [1 / (n + 1), 1].

    Raises:
        ValueError: no calibration scores, or a score that is NaN or infinite.
    """
    scores = _require_finite(calibration)
    if not math.isfinite(score):
        raise ValueError(f"a score must be finite; got {score}")
    return (1 + int(np.count_nonzero(scores >= score))) / (len(scores) + 1)


def compute_threshold(calibration: Sequence[float] | NDArray[Any], target_fpr: float) -> ConformalThreshold:
    """The lowest threshold for ``target_fpr``, or the highest there is where n is too small for it.

    Args:
        calibration: the scores of n good images, in any order.
        target_fpr: share of good images that may be rejected, in (0, 1).

    Raises:
        ValueError: no calibration scores, one that is NaN or infinite, or a target not in (0, 1).
    """
    scores = _require_finite(calibration)
    n = len(scores)
    asked = threshold_rank(n, target_fpr)
    place = max(asked, 1)
    return ConformalThreshold(
        reject=float(np.sort(scores)[n - place]),
        target_fpr=target_fpr,
        certified=asked >= 1,
        achievable_fpr=place / (n + 1),
        n_calibration=n,
    )


def false_reject_band(
    n_calibration: int, n_test: int, target_fpr: float, confidence: float = 0.99
) -> tuple[int, int]:
    """The fewest and the most of ``n_test`` good images that chance alone would let be rejected.

    The number rejected by :func:`compute_threshold` follows BetaBinomial(n_test, l, n + 1 - l) where scores
    have no ties. The band is central and both its ends belong to it: at least ``confidence`` of
    all calibration and test sets end inside.

    Raises:
        ValueError: no images, or a rate or a confidence that is not in (0, 1).
    """
    if n_calibration < 1 or n_test < 1:
        raise ValueError(f"a band needs calibration and test images; got {n_calibration} and {n_test}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    from scipy.stats import betabinom  # takes a second, which serving need not wait for

    place = max(threshold_rank(n_calibration, target_fpr), 1)
    law = betabinom(n_test, place, n_calibration + 1 - place)
    return int(law.ppf((1 - confidence) / 2)), int(law.ppf((1 + confidence) / 2))


def realised_range(n_calibration: int, target_fpr: float, confidence: float = 0.95) -> tuple[float, float]:
    """Where the false-reject rate that one split calibration really gives is to be expected.

    The central interval of Beta(l, n + 1 - l), the law of that rate over calibration sets.

    Args:
        n_calibration: n, the calibration images.
        target_fpr: the rate asked for; where n is too small for it, l is 1.
        confidence: the chance that the rate lies between the two.

    Raises:
        ValueError: no images, or a rate or a confidence that is not in (0, 1).
    """
    if n_calibration < 1:
        raise ValueError(f"a range needs calibration images; got {n_calibration}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    from scipy.special import betaincinv  # takes a moment, which serving need not wait for

    place = max(threshold_rank(n_calibration, target_fpr), 1)
    tail = (1 - confidence) / 2
    low, high = (betaincinv(place, n_calibration + 1 - place, q) for q in (tail, 1 - tail))
    return float(low), float(high)


def threshold_rank(n: int, target_fpr: float) -> int:
    """l = floor(target_fpr (n + 1)): the threshold is the l-th largest of n scores; 0 where n is too small.

    Raises:
        ValueError: a rate that is not in (0, 1).
    """
    if not 0 < target_fpr < 1:
        raise ValueError(f"target_fpr must lie in (0, 1), as 0.01 for 1 %; got {target_fpr}")
    product = target_fpr * (n + 1)
    nearest = round(product)
    # 0.29 * 100 is 28.999999999999996 in floating point, and a whole rank would be lost.
    return min(nearest if math.isclose(product, nearest, rel_tol=1e-9) else math.floor(product), n)


def _require_finite(calibration: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    scores = np.asarray(calibration, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            "calibration needs the scores of at least one good image, in one dimension; "
            f"got shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores))
        raise ValueError(
            f"calibration scores must be finite; {len(bad)} of {len(scores)} are not, the first "
            f"at index {bad[0]} ({scores[bad[0]]})"
        )
    return scores
