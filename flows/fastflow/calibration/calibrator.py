"""Calibration of scores with good images that no fit has seen."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration import conformal
from flows.fastflow.calibration.conformal import ConformalThreshold
from flows.fastflow.calibration.likeness import Likeness, min_images
from flows.fastflow.imaging.heatmap import ColourScale
from flows.fastflow.manifest import Calibration, ThresholdRecord

# Made with the bundle; or later from images of the line, for all its stations or for one station.
CalibrationSource = Literal["bundle", "line", "station"]

Decision = Literal["PASS", "REVIEW", "REJECT"]

# Share of the way from a good image's typical map value to the pixel threshold. Half the map of an image of
# another product is above it; a defect covers less.
_UNUSUAL: Final = 0.25


class ModelOutput(Protocol):
    """Scores of one image, see `ScoredImage`."""

    @property
    def raw_score(self) -> float:
        """Image score of the model, before a calibration maps that of a region."""

    @property
    def score_map(self) -> NDArray[np.float32]: ...

    @property
    def image_part(self) -> float | None:
        """Share of the whole image in the score; None if a region of interest excludes it."""

    @property
    def statistics(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class ImageMeasurement:
    """Measurement of one good image for a calibration.

    Attributes:
        score: image score.
        image_part: share of the whole image in the score, see `ScoredImage`.
        peak: largest value of its map.
        median: median of its map.
        statistics: see `ScoredImage`.
    """

    score: float
    image_part: float
    peak: float
    median: float
    statistics: tuple[float, ...]


def measure_image(output: ModelOutput) -> ImageMeasurement:
    """Extract the values that a calibration needs from the scores of a good image.

    Raises:
        ValueError: only a region of the image was scored.
    """
    if output.image_part is None:
        raise ValueError("a calibration needs whole images; only a region of this one was scored")
    return ImageMeasurement(
        score=output.raw_score,
        image_part=output.image_part,
        peak=float(output.score_map.max()),
        median=float(np.median(output.score_map)),
        statistics=output.statistics,
    )


def calibrate(
    measurements: Sequence[ImageMeasurement], target_fpr: float, *, cross_fitted: bool = False
) -> Calibration:
    """Calibrate with good images.

    The scores give the image threshold for any rate. The same rule, applied to the largest map value of each
    image at `target_fpr`, gives the pixel threshold: at most that share of good parts shows a pixel above
    it. The pixel threshold is also the middle of the heatmaps' colour scale. The dark end is the median of
    the maps' medians.

    Args:
        measurements: measurements of at least one good image that no fit has seen, in any order.
        target_fpr: share of good parts that may be rejected.
        cross_fitted: see `Calibration`.

    Raises:
        ValueError: there are no images, or a value is not finite.
    """
    # First, because it validates the measurements.
    pixel = conformal.compute_threshold([one.peak for one in measurements], target_fpr).reject
    order = np.argsort([one.score for one in measurements], kind="stable")
    ordered = [measurements[i] for i in order]
    typical = float(np.median([one.median for one in measurements]))
    return Calibration(
        scores=[one.score for one in ordered],
        statistics=[list(one.statistics) for one in ordered],
        pictures=[one.image_part for one in ordered],
        cross_fitted=cross_fitted,
        map_typical=typical,
        # Maps of images without structure are flat, and a colour scale needs two ends.
        map_threshold=max(pixel, typical + 1e-3 * max(1.0, abs(typical))),
    )


def record_threshold(calibration: Calibration, target_fpr: float) -> ThresholdRecord:
    """Compute the threshold of a rate in the form that a bundle stores, see `conformal.compute_threshold`."""
    calibrator = Calibrator(calibration, target_fpr, identifier="")
    return ThresholdRecord(**asdict(calibrator.threshold))


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a decision.

    Attributes:
        calibrator: the calibration in force.
        reject: threshold above which the decision is REJECT, with its guarantee.
        review: REVIEW above it and up to `reject`; None without a review band.
    """

    calibrator: "Calibrator"
    reject: ConformalThreshold
    review: float | None

    def decide(self, score: float) -> Decision:
        if score > self.reject.reject:
            return "REJECT"
        return "REVIEW" if self.review is not None and score > self.review else "PASS"

    def is_near(self, score: float) -> bool:
        """Tell if a score is close to `reject`, on either side.

        The threshold has a rank k among the calibration scores. Close is nearer than the score of rank 2 k:
        below the threshold, scores that would be rejected at twice the rate.
        """
        scores = self.calibrator.scores
        rank = conformal.usable_rank(len(scores), self.reject.target_fpr)
        lower = float(scores[max(len(scores) - 2 * rank, 0)])
        return abs(score - self.reject.reject) < self.reject.reject - lower


class Calibrator:
    """Calibration in force: scores to p-values, rates to thresholds, maps to colours.

    Args:
        calibration: the recorded calibration.
        target_fpr: default rate of rejected good parts.
        review_fpr: default rate of the review band; None for no band.
        source: origin of the calibration.
        identifier: name of the calibration in answers and logs.

    Attributes:
        scores: scores of the calibration images, float64, sorted, read-only.
        colour_scale: colour scale of heatmaps; its middle is the pixel threshold.
    """

    def __init__(
        self,
        calibration: Calibration,
        target_fpr: float,
        review_fpr: float | None = None,
        *,
        source: CalibrationSource = "bundle",
        identifier: str,
    ) -> None:
        self.calibration = calibration
        self.target_fpr = target_fpr
        self.review_fpr = review_fpr
        self.source = source
        self.identifier = identifier
        self.colour_scale = ColourScale(low=calibration.map_typical, middle=calibration.map_threshold)
        self.scores = np.sort(np.asarray(calibration.scores, dtype=np.float64))
        self.scores.setflags(write=False)

    @cached_property
    def threshold(self) -> ConformalThreshold:
        """Threshold at the default rate."""
        return self.threshold_at(self.target_fpr)

    def threshold_at(self, target_fpr: float) -> ConformalThreshold:
        threshold = conformal.compute_threshold(self.scores, target_fpr)
        return replace(threshold, certified=False) if self.calibration.cross_fitted else threshold

    @cached_property
    def default_thresholds(self) -> Thresholds:
        return self.thresholds(None, self.review_fpr)

    def thresholds(self, target_fpr: float | None, review_fpr: float | None) -> Thresholds:
        """Compute the thresholds for these rates.

        Args:
            target_fpr: rate of rejected good parts; None for the default.
            review_fpr: rate of good parts that are rejected or reviewed; None for no review band.
        """
        reject = self.threshold if target_fpr is None else self.threshold_at(target_fpr)
        if review_fpr is None:
            return Thresholds(self, reject, None)
        # With few calibration images both rates may give the same score: the band is then empty.
        return Thresholds(self, reject, min(self.threshold_at(review_fpr).reject, reject.reject))

    def score(self, output: ModelOutput) -> float:
        """Return the image score to compare with `p_value` and thresholds.

        If a region of interest excludes the whole image's part, the score would hardly reach a threshold of
        whole images. It is then mapped to the score of the same rank: the calibration images are ranked
        without their whole-image parts too. A region cannot raise the ranked score, so the thresholds keep
        their guarantee. A calibration without recorded parts leaves the score unchanged.
        """
        if output.image_part is None and self._ranks is not None:
            return self._ranks.score(output.raw_score)
        return output.raw_score

    def p_value(self, score: float) -> float:
        """Compute the share of good images with at least this score, see `conformal.p_value`."""
        return conformal.p_value(score, self.scores)

    def is_unlike(self, output: ModelOutput) -> bool:
        """Tell if a whole image is unlike the calibration images: it may show another product.

        Its features are far from theirs, and at least half of its map is unusual. A calibration without
        recorded statistics, or with few images, never says so.
        """
        if self._likeness is None or not self._likeness.is_far(output.statistics):
            return False
        low, middle = self.colour_scale.low, self.colour_scale.middle
        unusual = np.count_nonzero(output.score_map > low + _UNUSUAL * (middle - low))
        return bool(2 * unusual > np.count_nonzero(output.score_map))  # the map is 0 outside a region

    @cached_property
    def _likeness(self) -> Likeness | None:
        if self.calibration.statistics is None:
            return None
        statistics = np.asarray(self.calibration.statistics, dtype=np.float64)
        return Likeness(statistics) if len(statistics) >= min_images(statistics.shape[1]) else None

    @cached_property
    def _ranks(self) -> "_RankMapping | None":
        if self.calibration.pictures is None:
            return None
        scores = np.asarray(self.calibration.scores, dtype=np.float64)
        return _RankMapping(scores - np.asarray(self.calibration.pictures, dtype=np.float64), scores)


class _RankMapping:
    """Mapping from scores without the whole image's part to full scores of the same rank.

    Args:
        pixels: scores of the calibration images without that part, in any order.
        scores: their full scores, in any order.
    """

    def __init__(self, pixels: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        self._pixels, self._scores = np.sort(pixels), np.sort(scores)

    def score(self, pixels: float) -> float:
        """Return the full score of the same rank as `pixels`.

        Interpolated between two ranks; beyond the ends the distance to the end is kept.
        """
        below = int(np.searchsorted(self._pixels, pixels))
        if below == len(self._pixels):
            return float(self._scores[-1] + (pixels - self._pixels[-1]))
        high, its_score = self._pixels[below], self._scores[below]
        if below == 0 or pixels == high:
            return float(its_score + (pixels - high))
        low, lower = self._pixels[below - 1], self._scores[below - 1]
        return float(lower + (pixels - low) / (high - low) * (its_score - lower))
