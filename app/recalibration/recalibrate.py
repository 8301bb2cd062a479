"""Recalibration with good images, without training: requirements on images, and effects."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np

from app.errors.problems import Problem
from app.history.comparison import compare
from app.history.drift_references import sorted_statistics
from app.inspection.decision import to_schema
from app.registry import model_settings
from app.registry.calibrations import (
    ActiveCalibration,
    CalibrationFiles,
    CalibrationTarget,
    StoredCalibration,
)
from app.registry.category_settings import CategorySettings
from app.schemas.predict import ThresholdInfo
from flows.fastflow.bundle.image_digests import ImageDigests, fingerprint
from flows.fastflow.calibration.calibrator import ImageMeasurement, calibrate
from flows.fastflow.calibration.review_band import describe_empty_band
from flows.fastflow.detector import Detector, bundle_calibrator
from flows.fastflow.files.listing import join_first
from flows.fastflow.manifest import Calibration

_MAX_NAMED: Final = 5  # refused images named in a message


class MeasuredImage(NamedTuple):
    """A scored good image: the SHA-256 of its file, and its measurement for a calibration."""

    sha256: str
    measurement: ImageMeasurement


@dataclass(frozen=True)
class RecalibrationResult:
    """A new calibration in force, its thresholds, and warnings."""

    before: ThresholdInfo | None  # None if the model had no calibration for its engine
    after: ActiveCalibration
    threshold: ThresholdInfo
    warnings: list[str]


def require_usable_images(images: Sequence[tuple[str, str]], fitted: ImageDigests | None) -> None:
    """Refuse images, by name and SHA-256, that would invalidate the promise of a calibration.

    Raises:
        Problem: invalid-request, naming the images: there are none, some are copies, or the model was fitted
            to some.
    """
    if not images:
        raise Problem(
            "invalid-request",
            "A calibration needs good images: send some, or review some of the audit sample.",
        )
    seen = [name[:64] for name, sha256 in images if fitted is not None and sha256 in fitted]
    if seen:
        raise Problem(
            "invalid-request",
            f"The model was fitted to {join_first(seen, _MAX_NAMED)}: it scores them lower than other good "
            "parts, and the threshold would reject more than it promises. Take images that it was neither "
            "trained on nor has learned from.",
        )
    counts = Counter(sha256 for _, sha256 in images)
    copies = [name[:64] for name, sha256 in images if counts[sha256] > 1]
    if copies:
        raise Problem(
            "invalid-request",
            f"These images are identical: {join_first(copies, _MAX_NAMED)}. A part that counts twice makes "
            "the promise wrong; send each image once.",
        )


def recalibrate(
    files: CalibrationFiles,
    settings: CategorySettings,
    detector: Detector,
    station: str | None,
    images: Sequence[MeasuredImage],
    *,
    fitted: ImageDigests | None,
    by: str,
    reason: str,
    check: Callable[[ActiveCalibration | None], None] = lambda _: None,
) -> RecalibrationResult:
    """Replace the calibration of a model by one of scored good images, at the set rates.

    Args:
        detector: the model that scored the images.
        station: None for all without their own calibration.
        images: scored good images, see `require_usable_images`.
        fitted: images that the model was fitted to; None if unknown.
        check: gets the calibration to be replaced, or None; may raise to refuse.

    Raises:
        Problem: as `CalibrationFiles.change`, or what `check` raises.
    """
    slot = CalibrationTarget.of(detector, station)
    target_fpr = detector.calibrator.target_fpr
    new = StoredCalibration(
        manifest_sha256=slot.sha256,
        precision=slot.precision,
        station=station,
        created=datetime.now(UTC),
        by=by,
        reason=reason,
        pictures=fingerprint([image.sha256 for image in images]),
        target_fpr=target_fpr,
        calibration=calibrate([image.measurement for image in images], target_fpr),
    )
    found = files.find(slot)
    before = (
        bundle_calibrator(slot.manifest, slot.sha256, slot.precision) if found is None else found.calibrator
    )

    def edit(current: ActiveCalibration | None) -> StoredCalibration:
        check(current)
        return new

    after = files.change(slot, edit)
    assert after is not None  # noqa: S101  (edit returns one)
    warnings = [] if before is None else describe_differences(before.calibration, new.calibration)
    used = model_settings.apply_settings(after.calibrator, settings)
    band = model_settings.resolve_review_fpr(after.calibrator, settings)
    if empty := describe_empty_band(used.reject.n_calibration, used.reject.target_fpr, band):
        warnings.append(f"{empty[0].upper()}{empty[1:]}.")
    if fitted is None:
        warnings.append("The version does not say which images it was fitted to; use none of those.")
    shown = None if before is None else to_schema(model_settings.apply_settings(before, settings))
    return RecalibrationResult(shown, after, to_schema(used), warnings)


def describe_differences(before: Calibration, after: Calibration) -> list[str]:
    """Name the statistics in which the new images differ from those of the calibration before.

    The two-sample Kolmogorov-Smirnov test compares scores, and mean and deviation of every scale's features,
    with a Bonferroni correction. If both sets have one distribution, the probability of any difference is at
    most 1 %. A difference is no error: a station may have another light. But it may also come from defects or
    other parts among the images.
    """
    old, new = sorted_statistics(before), sorted_statistics(after)
    shared = [name for name in old if name in new]
    compared = [compare(name, old[name], np.asarray(new[name]), len(shared), rising=False) for name in shared]
    return [
        f"{comparison.name}: {'higher' if comparison.shift > 0 else 'lower'} than in the calibration before "
        f"(distance {comparison.distance:.2f}, shift {comparison.shift:+.2f})"
        for comparison in compared
        if comparison.reaches()
    ]
