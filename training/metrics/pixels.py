"""Metrics of pixels: maps against masks, exactly, without holding the maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from training.metrics.aupimo import aupimo
from training.metrics.errors import MetricError
from training.metrics.images import F1Max
from training.metrics.sorted_runs import SortedRuns, descending
from training.metrics.sweep import FPR_GRID, Sweep

AUPRO_LIMITS = (0.3, 0.05)
_ONE_KIND = "pixel metrics need defective and good pixels; the masks have one kind only"


@dataclass(frozen=True)
class PixelCurves:
    """Curves to draw, each (k,), over the same false-positive rates.

    Attributes:
        fpr: share of the good pixels at or above a threshold, rising from 0 to 1.
        tpr: share of the defective pixels at or above it.
        pro: mean over defective regions of the share of their pixels at or above it.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    pro: NDArray[np.float64]


@dataclass(frozen=True)
class PixelFigures:
    """Metrics over all pixels of all pictures.

    Attributes:
        auroc: area under the ROC curve.
        average_precision: step-wise area under the precision-recall curve.
        f1_max: the largest F1, and its threshold.
        aupro: by limit of the false-positive rate, area under the per-region overlap curve up to it, over it.
        aupimo: mean over defective pictures; None where there are too few good pixels for it.
        aupimo_per_picture: in the order of the defective pictures; None likewise.
        regions: connected regions of the masks.
        curves: to draw.
    """

    auroc: float
    average_precision: float
    f1_max: F1Max
    aupro: dict[float, float]
    aupimo: float | None
    aupimo_per_picture: NDArray[np.float64] | None
    regions: int
    curves: PixelCurves


class PixelMetrics:
    """Takes maps and masks one by one and measures them together.

    Sorted scores go to a temporary file (in TMPDIR; 8 bytes a good pixel, 16 a defective one, none below 64
    MiB); memory is bounded by a few millions of pixels at a time. Close it, or use it in a `with`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> with PixelMetrics() as metrics:
        ...     for defective in (False, True):
        ...         mask = np.zeros((64, 64), dtype=bool)
        ...         mask[:8, :8] = defective
        ...         metrics.update((mask + rng.random((64, 64))).astype(np.float32), mask)
        ...     figures = metrics.compute()
        >>> figures.auroc, figures.aupro[0.3], figures.regions
        (1.0, 1.0, 1)
    """

    def __init__(self) -> None:
        self._good = SortedRuns()  # all pixels of good pictures
        self._around = SortedRuns()  # of defective pictures, the pixels beside the defects
        self._defects = SortedRuns(weighted=True)  # and the defects; a pixel weighs 1 / pixels of its region
        self._good_sizes: list[int] = []
        self._regions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the temporary files."""
        for runs in (self._good, self._around, self._defects):
            runs.close()

    def update(self, score_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Add a picture.

        Args:
            score_map: (H, W), higher is more anomalous.
            mask: (H, W), True where defective; all False for a good part.

        Raises:
            MetricError: shapes differ, or the map has values that are not finite.
        """
        _check(score_map, mask)
        score_map = score_map.astype(np.float32, copy=False)
        if not mask.any():
            self._good.append(score_map.ravel())
            self._good_sizes.append(mask.size)
            return
        weights, regions = _region_weights(mask)
        self._regions += regions
        self._defects.append(score_map[mask], weights)
        self._around.append(score_map[~mask])

    def compute(self) -> PixelFigures:
        """Measure what was added so far.

        Raises:
            MetricError: no pixel is defective, or none is good.
        """
        negatives, positives = self._good.pixels + self._around.pixels, self._defects.pixels
        if not (negatives and positives):
            raise MetricError(_ONE_KIND)
        sweep = Sweep(negatives, positives, self._regions, AUPRO_LIMITS)
        for good, around, defects in descending([self._good, self._around, self._defects]):
            sweep.advance(
                (np.concatenate([good.values, around.values]), np.concatenate([good.counts, around.counts])),
                (defects.values, defects.counts, defects.weights),
            )
        sweep.finish()
        try:
            overlaps = aupimo(self._good, np.asarray(self._good_sizes, dtype=np.int64), self._defects)
        except MetricError:  # too few good pixels: the other metrics stand
            overlaps = None
        return PixelFigures(
            auroc=sweep.roc_area,
            average_precision=sweep.average_precision,
            f1_max=sweep.f1_max,
            aupro=dict(zip(AUPRO_LIMITS, sweep.pro_areas, strict=True)),
            aupimo=None if overlaps is None else float(overlaps.mean()),
            aupimo_per_picture=overlaps,
            regions=self._regions,
            curves=PixelCurves(FPR_GRID.copy(), sweep.tpr_curve, sweep.pro_curve),
        )


def pixel_figures(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> PixelFigures:
    """All metrics of pixels, of maps (H, W) and masks (H, W), True where defective, that are in memory.

    Raises:
        MetricError: a map does not fit its mask, or no pixel is defective, or none is good.
    """
    with PixelMetrics() as metrics:
        for score_map, mask in zip(maps, masks, strict=True):
            metrics.update(score_map, mask)
        return metrics.compute()


def aupro(
    maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]], fpr_limit: float = 0.3
) -> float:
    """AUPRO alone, in memory: `PixelFigures.aupro` of maps (H, W) and masks (H, W), several times faster.

    Raises:
        MetricError: a map does not fit its mask, or no pixel is defective, or none is good.
    """
    regions = 0
    good, defective, weights = [], [], []
    for score_map, mask in zip(maps, masks, strict=True):
        _check(score_map, mask)
        good.append(score_map[~mask])
        if mask.any():
            of_pixels, found = _region_weights(mask)
            regions += found
            defective.append(score_map[mask])
            weights.append(of_pixels)
    negatives = sum(map(len, good))
    if not (negatives and regions):
        raise MetricError(_ONE_KIND)
    scores = np.concatenate(defective).astype(np.float32, copy=False)
    sweep = Sweep(negatives, len(scores), regions, (fpr_limit,))
    sweep.advance(
        (np.concatenate(good).astype(np.float32, copy=False), None), (scores, None, np.concatenate(weights))
    )
    sweep.finish()
    return sweep.pro_areas[0]


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
    """1 / pixels of the region, of every pixel of `score_map[mask]` in its order; and how many regions."""
    # Pixels that touch by a corner belong together, as in MVTec's own evaluation.
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    found = labels[mask]
    return 1 / np.bincount(found)[found], count - 1
