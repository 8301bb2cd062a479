"""Results of thresholds for several rates on a test set, with confidence intervals."""

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
    """A share of images with its confidence interval.

    Attributes:
        low, high: 95 % interval of Clopper and Pearson (1934), exact for independent images; else None.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of a rate and its results on a test set.

    Attributes:
        target_fpr: the requested rate.
        achievable_fpr: the rate that the calibration promises on average.
        fpr_at_95_confidence: the rate that 95 of 100 calibrations do not exceed.
        certified: True if the promised rate is at most the requested one.
        threshold: a score above it is rejected.
        false_rejects: share of good parts rejected; None without good parts.
        recall: share of defective parts rejected; None without defective parts.
    """

    target_fpr: float
    achievable_fpr: float
    fpr_at_95_confidence: float
    certified: bool
    threshold: float
    false_rejects: Share | None
    recall: Share | None


def operating_points(
    calibrator: Calibrator, scores: Sequence[float], defective: Sequence[bool], *, independent: bool
) -> list[OperatingPoint]:
    """Apply the thresholds of `RATES` and of the calibration's own rate to a test set.

    The test set chooses no threshold: each follows from the calibration images alone.

    Args:
        scores: (N,), scores of the test images.
        defective: (N,), the truth.
        independent: True if each image shows another part.
    """
    values, truth = np.asarray(scores), np.asarray(defective, dtype=np.bool_)
    points = []
    for rate in sorted({*RATES, calibrator.target_fpr}):
        threshold = calibrator.threshold_at(rate)
        rejected = values > threshold.reject
        points.append(
            OperatingPoint(
                target_fpr=rate,
                achievable_fpr=threshold.achievable_fpr,
                fpr_at_95_confidence=threshold.fpr_at_95_confidence,
                certified=threshold.certified,
                threshold=threshold.reject,
                false_rejects=_share(rejected[~truth], independent),
                recall=_share(rejected[truth], independent),
            )
        )
    return points


def _share(rejected: NDArray[np.bool_], independent: bool) -> Share | None:
    if not len(rejected):
        return None
    if not independent:
        return Share(float(rejected.mean()), None, None)
    test = binomtest(int(rejected.sum()), len(rejected))
    interval = test.proportion_ci(confidence_level=_CONFIDENCE, method="exact")
    return Share(float(rejected.mean()), float(interval.low), float(interval.high))
