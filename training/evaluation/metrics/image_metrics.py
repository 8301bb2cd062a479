"""Metrics of images, from one score and one label each.

All raise MetricError if the test images are all good or all defective, or if a score is not finite.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score


class MetricError(ValueError):
    """A metric is not defined for these values."""


class F1Max(NamedTuple):
    """The largest F1 over all thresholds, and the highest threshold that reaches it."""

    value: float
    threshold: float


def image_auroc(defective: Sequence[bool], scores: Sequence[float]) -> float:
    """Compute the area under the ROC curve: the chance that a defect outscores a good part."""
    return float(roc_auc_score(*_checked("image AUROC", defective, scores)))


def image_average_precision(defective: Sequence[bool], scores: Sequence[float]) -> float:
    """Compute the average precision, sum_k (R_k - R_(k-1)) P_k over descending thresholds.

    The step-wise area under the precision-recall curve, without interpolation.
    """
    return float(average_precision_score(*_checked("image AP", defective, scores)))


def image_f1_max(defective: Sequence[bool], scores: Sequence[float]) -> F1Max:
    """Compute the largest F1 of rejecting at score >= threshold, over all thresholds.

    The test images choose the threshold, so the value flatters; it decides nothing.
    """
    truth, values = _checked("image F1-max", defective, scores)
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(truth[order])
    # Equal scores are rejected together: only the last of them is a threshold.
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, [True]))
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    best = int(np.argmax(f1))
    return F1Max(float(f1[best]), float(values[order][ends[best]]))


def image_recall(defective: Sequence[bool], scores: Sequence[float], fpr: float) -> float:
    """Compute the share of defects found if at most `fpr` of the good parts may be rejected.

    The threshold is the lowest that does so, and the share is the height of the ROC curve at `fpr`. The good
    test images choose the threshold, so the value flatters; it compares models without a common threshold.
    """
    truth, values = _checked("image recall", defective, scores)
    good = np.sort(values[~truth])
    threshold = good[len(good) - 1 - int(fpr * len(good) * (1 + 1e-12))]
    return float(np.mean(values[truth] > threshold))


def _checked(
    metric: str, defective: Sequence[bool], scores: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, values = np.asarray(defective, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise MetricError(
            f"{metric} needs one score for each image; got {truth.shape} truths and {values.shape} scores"
        )
    if truth.all() or not truth.any():
        raise MetricError(
            f"{metric} needs good and defective test images; all of these are "
            f"{'defective' if truth.any() else 'good'}"
        )
    if not np.isfinite(values).all():
        raise MetricError(
            f"{metric} needs finite scores; {np.count_nonzero(~np.isfinite(values))} of {len(values)} are not"
        )
    return truth, values
