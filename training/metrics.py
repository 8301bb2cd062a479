"""How well scores and maps tell good parts from defective ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score


class MetricError(ValueError):
    """A metric is not defined for these pictures."""


def image_auroc(defective: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve of the raw image scores: the chance that a defect outscores a good part.

    Raises:
        MetricError: the test pictures are all good or all defective.
    """
    if len(set(defective)) < 2:
        raise MetricError(
            "image AUROC needs good and defective test pictures; all of these are "
            f"{'defective' if any(defective) else 'good'}"
        )
    return float(roc_auc_score(np.asarray(defective), np.asarray(scores)))


def pixel_auroc(masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.float32]]) -> float:
    """Area under the ROC curve over all pixels of all test pictures, on raw map values.

    Args:
        masks: per picture (H, W), True where defective; all False for a good part.
        maps: per picture (H, W), of the same shape.

    Raises:
        MetricError: no pixel is defective, or none is good.
    """
    truth = np.concatenate([mask.ravel() for mask in masks])
    if truth.all() or not truth.any():
        raise MetricError("pixel AUROC needs defective and good pixels; the masks have one kind only")
    return float(roc_auc_score(truth, np.concatenate([m.ravel() for m in maps])))
