"""Calibration: good pictures that no fit has seen are scored, and what a score means follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration import conformal
from flows.fastflow.calibration.conformal import ConformalThreshold
from flows.fastflow.imaging.heatmap import ColourScale
from flows.fastflow.manifest import Calibration

# The bundle's own; one made later of pictures of the line, for all its stations or for one of them.
CalibrationSource = Literal["bundle", "line", "station"]

Decision = Literal["PASS", "REVIEW", "REJECT"]


class ModelOutput(Protocol):
    """What a model found in a picture, see `Scored`."""

    @property
    def raw_score(self) -> float:
        """The image score as the model gives it, before a calibration ranks that of a region."""

    @property
    def score_map(self) -> NDArray[np.float32]:
        """The map."""

    @property
    def image_part(self) -> float | None:
        """What the whole picture adds to the score; None where a region of interest leaves it out."""

    @property
    def statistics(self) -> tuple[float, ...]:
        """Of the features."""


@dataclass(frozen=True)
class ImageMeasurement:
    """What a calibration takes from one good picture.

    Attributes:
        score: image score.
        image_part: what the whole picture added to it.
        peak: largest value of its map.
        median: median of its map.
        statistics: see `Scored`.
    """

    score: float
    image_part: float
    peak: float
    median: float
    statistics: tuple[float, ...]


def measure_image(found: ModelOutput) -> ImageMeasurement:
    """Take from what a model found in a good picture what a calibration needs.

    Raises:
        ValueError: only a region of the picture was scored.
    """
    if found.image_part is None:
        raise ValueError("a calibration is made of whole pictures; of this one a region was scored")
    return ImageMeasurement(
        score=found.raw_score,
        image_part=found.image_part,
        peak=float(found.score_map.max()),
        median=float(np.median(found.score_map)),
        statistics=found.statistics,
    )


def calibrate(measurements: Sequence[ImageMeasurement], target_fpr: float) -> Calibration:
    """Make a calibration of good pictures.

    The image threshold follows from the scores, at any rate. The pixel threshold is the same rule applied to
    the largest value of each picture's map, at `target_fpr`: a good part shows no pixel above it but in that
    share of cases. It is also the middle of the heatmaps' colours, whose dark end is the median of the maps'
    medians.

    Args:
        measurements: of good pictures that no fit has seen, at least one, in any order.
        target_fpr: share of good parts that may be rejected.

    Raises:
        ValueError: there are no pictures, or a value that is not finite.
    """
    # First of all, as it refuses what cannot be calibrated with.
    pixel = conformal.compute_threshold([one.peak for one in measurements], target_fpr).reject
    order = np.argsort([one.score for one in measurements], kind="stable")
    ordered = [measurements[i] for i in order]
    typical = float(np.median([one.median for one in measurements]))
    return Calibration(
        scores=[one.score for one in ordered],
        statistics=[list(one.statistics) for one in ordered],
        pictures=[one.image_part for one in ordered],
        map_typical=typical,
        # Maps of pictures without any structure are flat, and colours need two ends.
        map_threshold=max(pixel, typical + 1e-3 * max(1.0, abs(typical))),
    )


@dataclass(frozen=True)
class Thresholds:
    """Where decisions are taken.

    Attributes:
        calibrator: the calibration in force.
        reject: REJECT above it, with what it certifies.
        review: REVIEW above it and up to `reject`; None without a review band.
    """

    calibrator: "Calibrator"
    reject: ConformalThreshold
    review: float | None

    def decide(self, score: float) -> Decision:
        """Take the decision on a score."""
        if score > self.reject.reject:
            return "REJECT"
        return "REVIEW" if self.review is not None and score > self.review else "PASS"


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
        colour_scale: of heatmaps; its middle is the pixel threshold.
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
        """The threshold at the rate where nobody asks for another."""
        return self.threshold_at(self.target_fpr)

    def threshold_at(self, target_fpr: float) -> ConformalThreshold:
        """The threshold at a rate, and what it promises."""
        return conformal.compute_threshold(self.scores, target_fpr)

    @cached_property
    def default_thresholds(self) -> Thresholds:
        """The thresholds where nobody asks for other rates."""
        return self.thresholds(None, self.review_fpr)

    def thresholds(self, target_fpr: float | None, review_fpr: float | None) -> Thresholds:
        """The thresholds at these rates.

        Args:
            target_fpr: of rejected good parts; None for the calibration's own.
            review_fpr: of good parts rejected or reviewed; None for no review band.
        """
        reject = self.threshold if target_fpr is None else self.threshold_at(target_fpr)
        if review_fpr is None:
            return Thresholds(self, reject, None)
        # Where calibration has few images both rates may end at the same score: the band is then empty.
        return Thresholds(self, reject, min(self.threshold_at(review_fpr).reject, reject.reject))

    def score(self, found: ModelOutput) -> float:
        """The image score of a picture that `p_value` and `at` hold of.

        Where a region of interest leaves the whole picture out, or no such score would reach a threshold of
        whole pictures, it becomes the score that is as rare: the calibration's pictures are ranked without
        their whole-picture parts, too, and a rank means the same of both. Since a region cannot raise what is
        ranked, thresholds promise the same of it. A calibration that has not recorded the parts leaves the
        score as it is.
        """
        if found.image_part is None and self._ranks is not None:
            return self._ranks.score(found.raw_score)
        return found.raw_score

    def p_value(self, score: float) -> float:
        """The share of good pictures that score at least so high, see `conformal.p_value`."""
        return conformal.p_value(score, self.scores)

    @cached_property
    def _ranks(self) -> "_RankMapping | None":
        if self.calibration.pictures is None:
            return None
        scores = np.asarray(self.calibration.scores, dtype=np.float64)
        return _RankMapping(scores - np.asarray(self.calibration.pictures, dtype=np.float64), scores)


class _RankMapping:
    """Which score of whole pictures is as rare as one without the whole picture's part.

    Args:
        pixels: scores of the calibration's pictures without that part, in any order.
        scores: with it, in any order.
    """

    def __init__(self, pixels: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        self._pixels, self._scores = np.sort(pixels), np.sort(scores)

    def score(self, pixels: float) -> float:
        """As many of the scores are at least this as of those without the part are at least `pixels`.

        Between two of them by interpolation, beyond all as far as it is beyond.
        """
        below = int(np.searchsorted(self._pixels, pixels))
        if below == len(self._pixels):
            return float(self._scores[-1] + (pixels - self._pixels[-1]))
        high, its_score = self._pixels[below], self._scores[below]
        if below == 0 or pixels == high:
            return float(its_score + (pixels - high))
        low, lower = self._pixels[below - 1], self._scores[below - 1]
        return float(lower + (pixels - low) / (high - low) * (its_score - lower))
