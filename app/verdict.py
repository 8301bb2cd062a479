"""The decision on a score: the thresholds of a model, as its category's settings want them."""

from dataclasses import dataclass
from typing import Final

from app.category_settings import CategorySettings
from app.schemas.predict import Decision
from flows.fastflow import conformal
from flows.fastflow.detector import Detector

SEVERITY: Final[dict[Decision, int]] = {"PASS": 0, "REVIEW": 1, "REJECT": 2}


@dataclass(frozen=True)
class Thresholds:
    """Where decisions are taken.

    Attributes:
        reject: REJECT above it, with what it certifies.
        review: REVIEW above it and up to `reject`; None without a review band.
    """

    reject: conformal.Threshold
    review: float | None

    def decide(self, score: float) -> Decision:
        """Take the decision on a score."""
        if score > self.reject.reject:
            return "REJECT"
        return "REVIEW" if self.review is not None and score > self.review else "PASS"


def thresholds(detector: Detector, settings: CategorySettings) -> Thresholds:
    """The thresholds of a model: of its calibration scores, at the rates that the settings ask for."""
    reject = detector.threshold
    if settings.target_fpr is not None:
        reject = conformal.threshold(detector.calibration_scores, settings.target_fpr)
    if settings.review_fpr is None:
        return Thresholds(reject, None)
    # Where calibration has few images both rates may end at the same score: the band is then empty.
    review = conformal.threshold(detector.calibration_scores, settings.review_fpr).reject
    return Thresholds(reject, min(review, reject.reject))


def worst(decisions: list[Decision]) -> Decision:
    """The decision on a part of which several images were inspected."""
    return max(decisions, key=SEVERITY.__getitem__)
