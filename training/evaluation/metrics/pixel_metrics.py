"""Metrics of pixels, from maps and masks, in bounded memory."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics.aupimo import aupimo, kept_scores
from training.evaluation.metrics.histogram import ScoreHistogram
from training.evaluation.metrics.image_metrics import F1Max, MetricError

AUPRO_LIMITS = (0.3, 0.05)
# Rates of the drawn curves: even, and finer near 0.
FPR_GRID = np.unique(
    np.concatenate([np.linspace(0, 1, 201), np.linspace(0, 0.05, 101), np.geomspace(1e-6, 1, 181)])
)


@dataclass(frozen=True)
class PixelCurves:
    """Curves for the report, each (k,), over the same false-positive rates.

    Attributes:
        fpr: share of the good pixels at or above a threshold, ascending from 0 to 1.
        tpr: share of the defective pixels at or above it.
        pro: mean over defective regions of the share of their pixels at or above it.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    pro: NDArray[np.float64]


@dataclass(frozen=True)
class PixelFigures:
    """Metrics over all pixels of all images.

    Attributes:
        average_precision: step-wise area under the precision-recall curve.
        f1_max: the largest F1, and its threshold.
        aupro: by limit of the false-positive rate: area under the per-region overlap up to it, over it.
        aupimo: mean over defective images; None with too few good pixels.
    """

    auroc: float
    average_precision: float
    f1_max: F1Max
    aupro: dict[float, float]
    aupimo: float | None
    regions: int
    curves: PixelCurves


class PixelMetrics:
    """Accumulates maps and masks one by one, in bounded memory.

    Scores are counted in bins, see `ScoreHistogram`: values are exact for at most a quarter of a million
    distinct scores, and otherwise within far less than 1e-4.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> metrics = PixelMetrics()
        >>> for defective in (False, True):
        ...     mask = np.zeros((64, 64), dtype=bool)
        ...     mask[:8, :8] = defective
        ...     metrics.update((mask + rng.random((64, 64))).astype(np.float32), mask)
        >>> figures = metrics.compute()
        >>> figures.auroc, figures.aupro[0.3], figures.regions
        (1.0, 1.0, 1)
    """

    def __init__(self) -> None:
        # Per bin: good pixels, defective pixels, weights 1 / pixels of the region of defective pixels, and
        # weights 1 / pixels of the image of pixels in good images.
        self._histogram = ScoreHistogram(4)
        self._defects: list[NDArray[np.float32]] = []  # of each defective image
        self._good_images = 0
        self._regions = 0

    def update(self, score_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Add an image.

        Args:
            score_map: (H, W), higher is more anomalous.
            mask: (H, W), True where defective; all False for a good part.

        Raises:
            MetricError: shapes differ, or the map has values that are not finite.
        """
        _check(score_map, mask)
        score_map = score_map.astype(np.float32, copy=False)
        if not mask.any():
            self._histogram.add(score_map.ravel(), [1.0, 0.0, 0.0, 1 / mask.size])
            self._good_images += 1
            return
        weights, regions = _region_weights(mask)
        self._regions += regions
        self._histogram.add(score_map[mask], [0.0, 1.0, weights, 0.0])
        self._histogram.add(score_map[~mask], [1.0, 0.0, 0.0, 0.0])
        self._defects.append(kept_scores(score_map[mask]))

    def compute(self) -> PixelFigures:
        """Compute the metrics of everything added so far.

        Raises:
            MetricError: no pixel is defective, or none is good.
        """
        scores, sums = self._histogram.descending()
        # Counts at or above the lowest score of each bin.
        fp, tp, overlap = np.cumsum(sums[:, :3], axis=0).T
        if not (len(scores) and fp[-1] and tp[-1]):
            raise MetricError("pixel metrics need defective and good pixels; the masks have one kind only")
        fpr, tpr, pro = (
            np.append(0, x) / total for x, total in ((fp, fp[-1]), (tp, tp[-1]), (overlap, self._regions))
        )
        f1 = 2 * tp / (tp + fp + tp[-1])
        best = int(np.argmax(f1))
        overlaps = self._aupimo(scores, sums[:, 3])
        return PixelFigures(
            auroc=_area_up_to(1.0, fpr, tpr),
            average_precision=float(sums[:, 1] @ (tp / (tp + fp))) / float(tp[-1]),
            f1_max=F1Max(float(f1[best]), float(scores[best])),
            aupro={limit: _area_up_to(limit, fpr, pro) / limit for limit in AUPRO_LIMITS},
            aupimo=None if overlaps is None else float(overlaps.mean()),
            regions=self._regions,
            curves=PixelCurves(FPR_GRID.copy(), *(np.interp(FPR_GRID, fpr, y) for y in (tpr, pro))),
        )

    def _aupimo(
        self, scores: NDArray[np.float32], weights: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        of_good = weights > 0
        lowest = scores[of_good]
        return aupimo(
            (lowest, self._histogram.above(lowest)),
            weights[of_good] / max(1, self._good_images),
            self._defects,
        )


def _check(score_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    if score_map.ndim != 2 or score_map.shape != mask.shape or mask.dtype != np.bool_:
        raise MetricError(
            f"a map (H, W) and a bool mask of the same shape are needed; got {score_map.shape} and "
            f"{mask.shape} of {mask.dtype}"
        )
    if not np.isfinite(score_map).all():
        raise MetricError(
            f"a map must be finite; {np.count_nonzero(~np.isfinite(score_map))} of its {score_map.size} "
            "values are not"
        )


def _region_weights(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """Weight every pixel of `score_map[mask]` by 1 / pixels of its region; count the regions."""
    # Pixels that touch at a corner are connected, as in MVTec's own evaluation.
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    region = labels[mask]
    return 1 / np.bincount(region)[region], count - 1


def _area_up_to(limit: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Integrate the straight lines through (x, y), x ascending, from x[0] to the limit."""
    inside = x[:-1] < limit
    x0, x1, y0, y1 = (side[inside] for side in (x[:-1], x[1:], y[:-1], y[1:]))
    ends = np.minimum(x1, limit)
    width = x1 - x0
    reached = np.divide(ends - x0, width, out=np.zeros_like(width), where=width > 0)
    return float((ends - x0) @ (y0 + 0.5 * (y1 - y0) * reached))
