"""A threshold that sinks from above every score to below it, and the areas it sweeps."""

import numpy as np
from numpy.typing import NDArray

from training.metrics.images import F1Max

# For curves that are drawn: even, and finer where a line lives.
FPR_GRID = np.unique(
    np.concatenate([np.linspace(0, 1, 201), np.linspace(0, 0.05, 101), np.geomspace(1e-6, 1, 181)])
)


class Sweep:
    """Areas under the ROC, precision-recall and per-region overlap curves, interval by interval of the score.

    Exact, ties included. Only the scores of defective pixels matter as thresholds: between two of them recall
    and overlap are level, and precision falls.

    Args:
        negatives: good pixels in all.
        positives: defective pixels in all.
        regions: defective regions in all.
        pro_limits: false-positive rates up to which the overlap is integrated.

    Attributes:
        roc_area: area under the ROC curve so far, in 0 ... 1.
        pro_areas: by limit the area under the overlap curve up to it, divided by it (Bergmann et al., IJCV
            2021, section 5.2), linearly interpolated at the limit.
        average_precision: sum of precision times the growth of recall.
        f1_max: the largest F1, with the highest threshold that reaches it.
        tpr_curve, pro_curve: (k,) recall and overlap at `FPR_GRID`.
    """

    def __init__(self, negatives: int, positives: int, regions: int, pro_limits: tuple[float, ...]) -> None:
        self._negatives, self._positives, self._regions = negatives, positives, regions
        self._limits = pro_limits
        self._fp, self._tp, self._overlap = 0, 0, 0.0
        self._drawn = 0  # points of the curves
        self.roc_area = 0.0
        self.pro_areas = [0.0] * len(pro_limits)
        self.average_precision = 0.0
        self.f1_max = F1Max(-1.0, np.inf)
        self.tpr_curve = np.zeros(len(FPR_GRID))
        self.pro_curve = np.zeros(len(FPR_GRID))

    def advance(
        self,
        good: tuple[NDArray[np.float32], NDArray[np.int64] | None],
        defective: tuple[NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.float64]],
    ) -> None:
        """Sink through the next interval of scores.

        Args:
            good: scores of good pixels in it, in any order, and how many pixels have each; None for one.
            defective: the same of defective pixels, with the sum of their weights; a pixel weighs
                1 / pixels of its region.
        """
        if len(defective[0]):
            self._through_defects(good, defective)
        else:
            passed = len(good[0]) if good[1] is None else int(good[1].sum())
            self._draw_to(np.array([self._fp + passed]), np.array([self._tp]), np.array([self._overlap]))

    def finish(self) -> None:
        """Sink to below every score."""
        self._draw_to(np.array([self._negatives]), np.array([self._tp]), np.array([self._overlap]))
        self.tpr_curve[self._drawn :] = self._tp / self._positives
        self.pro_curve[self._drawn :] = self._overlap / self._regions

    def _through_defects(
        self,
        good: tuple[NDArray[np.float32], NDArray[np.int64] | None],
        defective: tuple[NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.float64]],
    ) -> None:
        scores, inverse = np.unique(defective[0], return_inverse=True)
        counts = np.bincount(inverse, defective[1], len(scores))[::-1]
        weights = np.bincount(inverse, defective[2], len(scores))[::-1]
        scores = scores[::-1]
        above, at_or_above = _counts_above(good, scores)
        tp = self._tp + np.cumsum(counts)
        overlap = self._overlap + np.cumsum(weights)
        fp = self._fp + at_or_above
        self.average_precision += float(counts @ (tp / (tp + fp))) / self._positives
        f1 = 2 * tp / (tp + fp + self._positives)
        best = int(np.argmax(f1))
        if f1[best] > self.f1_max.value:
            self.f1_max = F1Max(float(f1[best]), float(scores[best]))
        # Two corners for each score of a defect: just above it, and at it.
        passed = len(good[0]) if good[1] is None else int(good[1].sum())
        self._draw_to(
            np.append(np.stack([self._fp + above, fp], 1).ravel(), self._fp + passed),
            np.append(np.stack([np.append(self._tp, tp[:-1]), tp], 1).ravel(), tp[-1]),
            np.append(np.stack([np.append(self._overlap, overlap[:-1]), overlap], 1).ravel(), overlap[-1]),
        )

    def _draw_to(
        self, fp: NDArray[np.generic], tp: NDArray[np.generic], overlap: NDArray[np.generic]
    ) -> None:
        """Follow straight lines from where the curves are through these corners (k,)."""
        x = np.append(self._fp, fp) / self._negatives
        recall = np.append(self._tp, tp) / self._positives
        pro = np.append(self._overlap, overlap) / self._regions
        self.roc_area += _area_up_to(1.0, x, recall)
        for i, limit in enumerate(self._limits):
            self.pro_areas[i] += _area_up_to(limit, x, pro) / limit
        # Not at the end itself: from there the curves may rise straight up.
        end = int(np.searchsorted(FPR_GRID, x[-1], side="left"))
        points = FPR_GRID[self._drawn : end]
        self.tpr_curve[self._drawn : end] = np.interp(points, x, recall)
        self.pro_curve[self._drawn : end] = np.interp(points, x, pro)
        self._drawn = end
        self._fp, self._tp, self._overlap = int(fp[-1]), int(tp[-1]), float(overlap[-1])


def _counts_above(
    good: tuple[NDArray[np.float32], NDArray[np.int64] | None], thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many good pixels lie above each threshold, and how many at or above it."""
    values, counts = good
    if counts is None:
        values = np.sort(values)
        rising = np.arange(len(values) + 1)
    else:
        order = np.argsort(values)
        values = values[order]
        rising = np.append(0, np.cumsum(counts[order]))
    above = rising[-1] - rising[np.searchsorted(values, thresholds, side="right")]
    at_or_above = rising[-1] - rising[np.searchsorted(values, thresholds, side="left")]
    return above, at_or_above


def _area_up_to(limit: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Area under straight lines through (x, y), x rising, from x[0] to the limit."""
    inside = x[:-1] < limit
    x0, x1, y0, y1 = (side[inside] for side in (x[:-1], x[1:], y[:-1], y[1:]))
    ends = np.minimum(x1, limit)
    width = x1 - x0
    reached = np.divide(ends - x0, width, out=np.zeros_like(width), where=width > 0)
    return float((ends - x0) @ (y0 + 0.5 * (y1 - y0) * reached))
