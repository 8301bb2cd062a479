"""Decisions and thresholds as answers show them."""

from collections.abc import Iterable
from dataclasses import asdict

from app.history.rates import DECISIONS
from app.schemas.predict import CalibrationUsed, Decision, ThresholdInfo
from flows.fastflow.calibration.calibrator import Thresholds


def to_schema(used: Thresholds) -> ThresholdInfo:
    """Convert thresholds to their schema, with that of the map."""
    calibrator = used.calibrator
    return ThresholdInfo(
        **asdict(used.reject),
        fpr_at_95_confidence=used.reject.fpr_at_95_confidence,
        review=used.review,
        pixel=calibrator.colour_scale.middle,
        calibration=CalibrationUsed(id=calibrator.identifier, source=calibrator.source),
    )


def worst_decision(decisions: Iterable[Decision]) -> Decision:
    """Return the decision on a part from those on its images, at least one."""
    return max(decisions, key=DECISIONS.index)
