"""Apply the settings of a category to a model: thresholds, review band, region of interest."""

import numpy as np
from numpy.typing import NDArray

from app.errors.problems import Problem
from app.registry.category_settings import CategorySettings, Region
from flows.fastflow.calibration.calibrator import Calibrator, Thresholds
from flows.fastflow.detector import Detector


def thresholds(calibrator: Calibrator, settings: CategorySettings) -> Thresholds:
    """The thresholds of a calibration, at the rates that the settings ask for."""
    return calibrator.thresholds(settings.target_fpr, review_fpr(calibrator, settings))


def review_fpr(calibrator: Calibrator, settings: CategorySettings) -> float | None:
    """The rate of the review band; None where there is to be none."""
    if settings.review_fpr is not None:
        return settings.review_fpr or None  # 0: none, whatever the version was made with
    rejected = settings.target_fpr or calibrator.target_fpr
    # A target that was raised beyond the band that the version was made with leaves nothing of it.
    own = calibrator.review_fpr
    return own if own is not None and own > rejected else None


def require_band(calibrator: Calibrator, settings: CategorySettings) -> None:
    """Raise the problem invalid-request where the review band that was asked for would be empty."""
    rejected = settings.target_fpr or calibrator.target_fpr
    if settings.review_fpr and settings.review_fpr <= rejected:
        raise Problem(
            "invalid-request",
            f"review_fpr counts rejected parts too, so it must be more than target_fpr, {rejected:g}; it was "
            f"{settings.review_fpr:g}.",
        )


def region_mask(detector: Detector, region: Region) -> NDArray[np.bool_]:
    """The mask of a region on the map of the picture that it was drawn on."""
    return region.mask(detector.scorer.layout((region.image.height, region.image.width)).size)


def require_region(detector: Detector, region: Region) -> None:
    """Raise the problem invalid-request where a region of interest hides even the worst defect."""
    try:
        require_detectable(detector, region_mask(detector, region))
    except Problem as problem:
        raise Problem("invalid-request", problem.detail) from problem


def require_detectable(detector: Detector, mask: NDArray[np.bool_]) -> None:
    """Raise the problem model-loading where a model could tell no defect in a region: every part would pass.

    A score averages a share of all pixels; a region smaller than that cannot reach a threshold. Settings and
    versions change apart from each other, so every decision looks at both.
    """
    height, width = mask.shape
    share = np.count_nonzero(mask) / mask.size
    least = detector.scorer.rule_for((height, width)).top_fraction
    if share < least:
        raise Problem(
            "model-loading",
            f"The region is {share:.2%} of the picture, and a score averages {least:.2%} of it: no defect in "
            "there could be told. Set a larger region.",
        )


def require_settings(detector: Detector, settings: CategorySettings) -> None:
    """Raise the problem rejected-bundle where what was set would be a check that checks nothing.

    A version with another rate or another input size than the one before can make it so.
    """
    whose = ""
    try:
        require_band(detector.calibrator, settings)
        if settings.region is not None:
            require_region(detector, settings.region)
        for station, region in settings.stations.items():
            whose = f"Station {station[:64]!r}: "
            require_region(detector, region)
    except Problem as problem:
        raise Problem("rejected-bundle", f"{whose}{problem.detail}") from problem
