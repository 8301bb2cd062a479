"""Calibration: good pictures that no fit has seen are scored, and what a score means follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flows.fastflow import conformal
from flows.fastflow.conformal import Guarantee, Threshold
from flows.fastflow.heatmap import ColourScale
from flows.fastflow.manifest import Calibration

# The bundle's own; one made later of pictures of the line, for all its stations or for one of them.
Source = Literal["bundle", "line", "station"]


@dataclass(frozen=True)
class Measurement:
    """What a calibration takes from one good picture.

    Attributes:
        score: image score.
        peak: largest value of its map.
        median: median of its map.
        statistics: see `Scored`.
    """

    score: float
    peak: float
    median: float
    statistics: tuple[float, ...]


def measure(
    by_head: Sequence[float], score_map: NDArray[np.float32], statistics: tuple[float, ...]
) -> Measurement:
    """Take from what a model found in a good picture, see `Scored`, what a calibration needs."""
    return Measurement(
        score=_mean(by_head),
        peak=float(score_map.max()),
        median=float(np.median(score_map)),
        statistics=statistics,
    )


def calibrate(
    measurements: Sequence[Measurement], target_fpr: float, folds: Sequence[int] | None = None
) -> Calibration:
    """Make a calibration of good pictures.

    The image threshold follows from the scores, at any rate. The pixel threshold is the same rule applied to
    the largest value of each picture's map, at `target_fpr`: a good part shows no pixel above it but in that
    share of cases. It is also the middle of the heatmaps' colours, whose dark end is the median of the maps'
    medians.

    Args:
        measurements: of good pictures that no fit has seen, at least one, in any order.
        target_fpr: share of good parts that may be rejected.
        folds: of a cross calibration, which head each was scored by: the one that has not seen it. The pixel
            threshold then has no promise of its own; the map that is served is the mean of all heads' maps,
            whose peak is at most the mean of their peaks.

    Raises:
        ValueError: there are no pictures, or a value that is not finite.
    """
    # First of all, as it refuses what cannot be calibrated with.
    pixel = conformal.threshold([one.peak for one in measurements], target_fpr).reject
    order = np.argsort([one.score for one in measurements], kind="stable")
    ordered = [measurements[i] for i in order]
    return Calibration(
        scores=[one.score for one in ordered],
        statistics=[list(one.statistics) for one in ordered],
        folds=None if folds is None else [folds[i] for i in order],
        map_typical=float(np.median([one.median for one in measurements])),
        map_threshold=pixel,
    )


class Calibrator:
    """A calibration in force: scores to p-values, rates to thresholds, maps to colours.

    Args:
        calibration: as recorded.
        target_fpr: rate where nobody asks for another.
        review_fpr: likewise, of the review band; None for no band.
        source: whose calibration it is.
        identifier: tells it from others, in answers and logs.

    Attributes:
        scores: of the calibration pictures, float64, sorted, not to be written to.
        guarantee: what `threshold` promises, see `conformal`.
        colour_scale: of heatmaps; its middle is the pixel threshold.

    Raises:
        ValueError: the maps of the calibration give no scale of colours.
    """

    def __init__(
        self,
        calibration: Calibration,
        target_fpr: float,
        review_fpr: float | None = None,
        *,
        source: Source = "bundle",
        identifier: str,
    ) -> None:
        self.calibration = calibration
        self.target_fpr = target_fpr
        self.review_fpr = review_fpr
        self.source = source
        self.identifier = identifier
        self.guarantee: Guarantee = "split" if calibration.heads == 1 else "cross"
        self.colour_scale = ColourScale(low=calibration.map_typical, middle=calibration.map_threshold)
        self.scores = np.sort(np.asarray(calibration.scores, dtype=np.float64))
        self.scores.setflags(write=False)

    @cached_property
    def threshold(self) -> Threshold:
        """The threshold at the rate where nobody asks for another."""
        return self.at(self.target_fpr)

    def at(self, target_fpr: float) -> Threshold:
        """The threshold at a rate, and what it promises."""
        return conformal.threshold(self.scores, target_fpr, models=self.calibration.heads)

    def score(self, by_head: Sequence[float]) -> float:
        """The image score of a picture by the scores of a model's heads; `p_value` and `at` hold of it.

        The mean where the calibration is none of folds: as of pictures of the line, which no head has seen.
        """
        if self._folds is None:
            return _mean(by_head)
        return conformal.cross_score(by_head, self._folds)

    def p_value(self, score: float) -> float:
        """The share of good pictures that score at least so high, see `conformal.p_value`."""
        return conformal.p_value(score, self.scores)

    @cached_property
    def _folds(self) -> list[NDArray[np.float64]] | None:
        if self.calibration.folds is None:
            return None
        folds = np.asarray(self.calibration.folds)
        scores = np.asarray(self.calibration.scores, dtype=np.float64)
        return [np.sort(scores[folds == k]) for k in range(self.calibration.heads)]


def _mean(by_head: Sequence[float]) -> float:
    return sum(by_head) / len(by_head)
