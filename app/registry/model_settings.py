"""Apply the settings of a category to a model: thresholds, review band, region of interest."""

import numpy as np
from numpy.typing import NDArray

from app.errors.problems import Problem
from app.registry.category_settings import CategorySettings, StoredRegion
from flows.fastflow.calibration.calibrator import Calibrator, Thresholds
from flows.fastflow.detector import Detector


def apply_settings(calibrator: Calibrator, settings: CategorySettings) -> Thresholds:
    """Return the thresholds of a calibration at the rates of the settings."""
    return calibrator.thresholds(settings.target_fpr, resolve_review_fpr(calibrator, settings))


def resolve_review_fpr(calibrator: Calibrator, settings: CategorySettings) -> float | None:
    """Return the rate of the review band; None for no band."""
    if settings.review_fpr is not None:
        return settings.review_fpr or None  # 0: no band
    rejected = settings.target_fpr or calibrator.target_fpr
    # A target above the version's own band leaves no band.
    own = calibrator.review_fpr
    return own if own is not None and own > rejected else None


def require_review_band(calibrator: Calibrator, settings: CategorySettings) -> None:
    """Raise the problem invalid-request if the requested review band would be empty."""
    rejected = settings.target_fpr or calibrator.target_fpr
    if settings.review_fpr and settings.review_fpr <= rejected:
        raise Problem(
            "invalid-request",
            f"review_fpr counts rejected parts too, so it must be more than target_fpr, {rejected:g}; it was "
            f"{settings.review_fpr:g}.",
        )


def region_mask(detector: Detector, region: StoredRegion) -> NDArray[np.bool_]:
    """Return the mask of a region on the map of the image it was drawn on."""
    return region.mask(detector.scorer.layout((region.image.height, region.image.width)).size)


def require_region(detector: Detector, region: StoredRegion) -> None:
    """Raise the problem invalid-request if a region of interest is too small to detect a defect."""
    try:
        require_detectable(detector, region_mask(detector, region))
    except Problem as problem:
        raise Problem("invalid-request", problem.detail) from problem


def require_detectable(detector: Detector, mask: NDArray[np.bool_]) -> None:
    """Raise the problem model-loading if a region is too small for the model to detect a defect.

    A score averages a share of all pixels, and a smaller region cannot reach a threshold: every part would
    pass. Settings and versions change independently, so every decision checks both.
    """
    height, width = mask.shape
    share = np.count_nonzero(mask) / mask.size
    minimum = detector.scorer.rule_for((height, width)).top_fraction
    if share < minimum:
        raise Problem(
            "model-loading",
            f"The region is {share:.2%} of the image, but a score averages {minimum:.2%} of it, so no defect "
            "could be detected. Set a larger region.",
        )


def require_compatible_settings(detector: Detector, settings: CategorySettings) -> None:
    """Raise the problem rejected-bundle if the settings do not work with a model.

    A version with another rate or input size than the previous one can cause this.
    """
    station_prefix = ""
    try:
        require_review_band(detector.calibrator, settings)
        if settings.region is not None:
            require_region(detector, settings.region)
        for station, region in settings.stations.items():
            station_prefix = f"Station {station[:64]!r}: "
            require_region(detector, region)
    except Problem as problem:
        raise Problem("rejected-bundle", f"{station_prefix}{problem.detail}") from problem
