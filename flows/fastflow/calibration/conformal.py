"""Conformal p-values of scores, and thresholds that keep a promised false-reject rate.

The scores s_1, ..., s_n of n good images that no training has seen are the calibration set. For a
good image whose score s is exchangeable with them,

    p(s) = (1 + #{i : s_i >= s}) / (n + 1)

is at most alpha with probability at most alpha, for every alpha and every law of the scores.
Rejecting at p <= alpha is the same as rejecting where s exceeds the l-th largest calibration
score, l = floor(alpha (n + 1)). Given one calibration set the false-reject rate is not alpha but a
draw from Beta(l, n + 1 - l) (for a continuous law; ties only lower it), whose mean is l / (n + 1).
Its 95 % quantile is the stronger promise: 95 of 100 calibration sets reject at most that share.

Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Vovk, "Conditional
validity of inductive conformal predictors", 2012, arXiv:1209.2673 (the Beta law).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HELD_OUT: Final = 0.2  # default share of the good images that a training holds out to calibrate


@dataclass(frozen=True)
class ConformalThreshold:
    """Threshold of a false-reject rate: reject if score > ``reject``.

    ``certified`` is true if the false-reject rate is at most ``target_fpr``, averaged over calibration
    sets. It is false for n < 1 / target_fpr - 1; ``reject`` is then the largest calibration score. The rates
    ``achievable_fpr`` and ``fpr_at_95_confidence`` hold in any case.
    """

    reject: float
    target_fpr: float
    certified: bool
    achievable_fpr: float
    n_calibration: int

    @property
    def fpr_at_95_confidence(self) -> float:
        """False-reject rate that 95 of 100 calibration sets do not exceed."""
        return fpr_at_95_confidence(self.n_calibration, self.target_fpr)


def p_value(score: float, calibration: Sequence[float] | NDArray[Any]) -> float:
    """Compute the share of good images that score at least ``score``, in [1 / (n + 1), 1].

    Raises:
        ValueError: no calibration scores, or a score that is NaN or infinite.
    """
    scores = _require_finite(calibration)
    if not math.isfinite(score):
        raise ValueError(f"a score must be finite; got {score}")
    return (1 + int(np.count_nonzero(scores >= score))) / (len(scores) + 1)


def compute_threshold(calibration: Sequence[float] | NDArray[Any], target_fpr: float) -> ConformalThreshold:
    """Compute the lowest threshold for ``target_fpr``, or the highest possible one if n is too small.

    Args:
        calibration: scores of n good images, in any order.
        target_fpr: share of good images that may be rejected, in (0, 1).

    Raises:
        ValueError: no calibration scores, one that is NaN or infinite, or a target not in (0, 1).
    """
    scores = _require_finite(calibration)
    n = len(scores)
    rank = usable_rank(n, target_fpr)
    return ConformalThreshold(
        reject=float(np.sort(scores)[n - rank]),
        target_fpr=target_fpr,
        certified=threshold_rank(n, target_fpr) >= 1,
        achievable_fpr=rank / (n + 1),
        n_calibration=n,
    )


def false_reject_band(
    n_calibration: int, n_test: int, target_fpr: float, confidence: float = 0.99
) -> tuple[int, int]:
    """Compute the range of rejected images that chance alone explains, of ``n_test`` good ones.

    The number rejected by :func:`compute_threshold` follows BetaBinomial(n_test, l, n + 1 - l) if scores
    have no ties. The band is central and includes both ends: at least ``confidence`` of all calibration and
    test sets lie inside.

    Raises:
        ValueError: no images, or a rate or a confidence that is not in (0, 1).
    """
    if n_calibration < 1 or n_test < 1:
        raise ValueError(f"a band needs calibration and test images; got {n_calibration} and {n_test}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    from scipy.stats import betabinom  # imported late: it takes a second, and serving does not need it

    rank = usable_rank(n_calibration, target_fpr)
    law = betabinom(n_test, rank, n_calibration + 1 - rank)
    return int(law.ppf((1 - confidence) / 2)), int(law.ppf((1 + confidence) / 2))


@lru_cache(maxsize=1024)
def fpr_at_95_confidence(n_calibration: int, target_fpr: float) -> float:
    """Compute the 95 % quantile of the false-reject rate over calibration sets, Beta(l, n + 1 - l).

    Args:
        n_calibration: n, the number of calibration images.
        target_fpr: the requested rate; l is 1 if n is too small for it.

    Raises:
        ValueError: no images, or a rate that is not in (0, 1).
    """
    if n_calibration < 1:
        raise ValueError(f"a promise needs calibration images; got {n_calibration}")
    rank = usable_rank(n_calibration, target_fpr)
    # P(Beta(l, n + 1 - l) > p) = P(Binomial(n, p) < l). Bisection in numpy, because answers of the server
    # need it, and importing scipy takes 0.1 s.
    k = np.arange(rank)  # (l,)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((n_calibration + 1 - k[1:]) / k[1:]))])
    low, high = 0.0, 1.0
    for _ in range(50):
        p = (low + high) / 2
        tail = np.exp(log_choose + k * math.log(p) + (n_calibration - k) * math.log1p(-p)).sum()
        low, high = (p, high) if tail > 0.05 else (low, p)
    return high


def describe_promise(n_calibration: int, target_fpr: float) -> str:
    """Describe both promised rates in a clause, see `compute_threshold` and `fpr_at_95_confidence`."""
    average = usable_rank(n_calibration, target_fpr) / (n_calibration + 1)
    confident = fpr_at_95_confidence(n_calibration, target_fpr)
    return f"at most {average:.2%} of good parts on average; with 95 % confidence at most {confident:.2%}"


def threshold_rank(n: int, target_fpr: float) -> int:
    """Compute l = floor(target_fpr (n + 1)); 0 if n is too small.

    The threshold is the l-th largest of n scores.

    Raises:
        ValueError: the rate is not in (0, 1).
    """
    if not 0 < target_fpr < 1:
        raise ValueError(f"target_fpr must lie in (0, 1), such as 0.01 for 1 %; got {target_fpr}")
    product = target_fpr * (n + 1)
    nearest = round(product)
    # 0.29 * 100 is 28.999999999999996 in floating point, and rounding down would lose a rank.
    return min(nearest if math.isclose(product, nearest, rel_tol=1e-9) else math.floor(product), n)


def good_images_for(target_fpr: float, fraction: float = HELD_OUT) -> int:
    """Compute the number of good images from which a training certifies a rate.

    Args:
        target_fpr: share of good parts that may be rejected.
        fraction: share of the images that the training holds out; it rounds their number.
    """
    needed = math.ceil(1 / target_fpr * (1 - 1e-9)) - 1
    count = math.floor((needed - 0.5) / fraction)
    while round(fraction * count) < needed:
        count += 1
    return count


def usable_rank(n: int, target_fpr: float) -> int:
    """Compute the rank of the score that is the threshold: `threshold_rank`, but at least 1."""
    return max(threshold_rank(n, target_fpr), 1)


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
