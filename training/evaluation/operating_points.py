"""What thresholds of several rates do on a test set, each with how far its shares may be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from flows.fastflow.calibration.calibrator import Calibrator

RATES: Final = (0.005, 0.01, 0.02, 0.05, 0.1)
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Share:
    """A share of images, and between which two the true one lies.

    Attributes:
        value: what was seen.
        low, high: 95 % interval of Clopper and Pearson (1934), exact for independent images; else None.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OperatingPoint:
    """What the threshold of a rate does.

    Attributes:
        target_fpr: the rate asked for.
        achievable_fpr: the rate that the calibration promises there.
        certified: whether the one is at least the other.
        threshold: a score above it is rejected.
        false_rejects: share of good parts rejected; None without good parts.
        recall: share of defective parts rejected; None without defective parts.
    """

    target_fpr: float
    achievable_fpr: float
    certified: bool
    threshold: float
    false_rejects: Share | None
    recall: Share | None


def operating_points(
    calibrator: Calibrator, scores: Sequence[float], defective: Sequence[bool], *, independent: bool
) -> list[OperatingPoint]:
    """What the thresholds of `RATES`, and of the calibration's own rate, do on a test set.

    No threshold is chosen by it: each follows from calibration images alone.

    Args:
        calibrator: gives the thresholds.
        scores: (N,) of the test images, by its rule.
        defective: (N,) the truth.
        independent: whether each image shows another part.
    """
    of, truth = np.asarray(scores), np.asarray(defective, dtype=np.bool_)
    found = []
    for rate in sorted({*RATES, calibrator.target_fpr}):
        threshold = calibrator.threshold_at(rate)
        rejected = of > threshold.reject
        found.append(
            OperatingPoint(
                target_fpr=rate,
                achievable_fpr=threshold.achievable_fpr,
                certified=threshold.certified,
                threshold=threshold.reject,
                false_rejects=_share(rejected[~truth], independent),
                recall=_share(rejected[truth], independent),
            )
        )
    return found


def _share(rejected: NDArray[np.bool_], independent: bool) -> Share | None:
    if not len(rejected):
        return None
    if not independent:
        return Share(float(rejected.mean()), None, None)
    test = binomtest(int(rejected.sum()), len(rejected))
    interval = test.proportion_ci(confidence_level=_CONFIDENCE, method="exact")
    return Share(float(rejected.mean()), float(interval.low), float(interval.high))
