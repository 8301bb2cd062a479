"""Recalibration with good images, without training: which images are allowed, and what it changes."""

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
from app.registry.calibrations import CalibrationFiles, InForce, Renewal, Slot
from app.registry.category_settings import CategorySettings
from app.schemas.predict import ThresholdInfo
from flows.fastflow.bundle.image_digests import ImageDigests, fingerprint
from flows.fastflow.calibration.calibrator import ImageMeasurement, calibrate
from flows.fastflow.calibration.review_band import describe_empty_band
from flows.fastflow.detector import Detector, bundle_calibrator
from flows.fastflow.files.listing import join_first
from flows.fastflow.manifest import Calibration

_NAMED: Final = 5  # of images that are refused, in a message


class MeasuredImage(NamedTuple):
    """A good image that was scored: the sha256 of its file, and what a calibration takes from it."""

    sha256: str
    measurement: ImageMeasurement


@dataclass(frozen=True)
class RecalibrationResult:
    """A new calibration in force, its thresholds, and what a person should look at."""

    before: ThresholdInfo | None  # None where the model had no calibration for its engine
    after: InForce
    threshold: ThresholdInfo
    warnings: list[str]


def require_usable_images(images: Sequence[tuple[str, str]], fitted: ImageDigests | None) -> None:
    """Refuse images that would make the promise of a calibration void.

    Args:
        images: the name and the sha256 of each.
        fitted: those that the model was fitted to; None where nobody knows.

    Raises:
        Problem: invalid-request, naming the images: there are none, one is there twice, or the model was
            fitted to one.
    """
    if not images:
        raise Problem("invalid-request", "A calibration needs good pictures; none came.")
    seen = [name[:64] for name, sha256 in images if fitted is not None and sha256 in fitted]
    if seen:
        raise Problem(
            "invalid-request",
            f"The model was fitted to {join_first(seen, _NAMED)}: it scores them lower than other good "
            "parts, and the threshold would reject more than it promises. Take pictures that no training has "
            "read.",
        )
    counts = Counter(sha256 for _, sha256 in images)
    twice = [name[:64] for name, sha256 in images if counts[sha256] > 1]
    if twice:
        raise Problem(
            "invalid-request",
            f"These pictures are copies of each other, byte for byte: {join_first(twice, _NAMED)}. One part "
            "counted twice promises what it cannot keep; send each once.",
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
    check: Callable[[InForce | None], None] = lambda _: None,
) -> RecalibrationResult:
    """Decide by good images from now on, at the rates that are set.

    Args:
        files: where calibrations are kept.
        settings: of the model's category.
        detector: the model that scored the images.
        station: for this one alone; None for all without one of their own.
        images: good ones, scored, see `require_usable_images`.
        fitted: those that the model was fitted to; None where nobody knows.
        by, reason: who asks for it, and why.
        check: receives the calibration that is replaced, if there is one; may raise to refuse.

    Raises:
        Problem: as `CalibrationFiles.change`, or what `check` raises.
    """
    slot = Slot.of(detector, station)
    target_fpr = detector.calibrator.target_fpr
    new = Renewal(
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

    def edit(there: InForce | None) -> Renewal:
        check(there)
        return new

    after = files.change(slot, edit)
    assert after is not None  # noqa: S101  (edit gives one)
    warnings = [] if before is None else describe_differences(before.calibration, new.calibration)
    used = model_settings.thresholds(after.calibrator, settings)
    band = model_settings.review_fpr(after.calibrator, settings)
    if empty := describe_empty_band(used.reject.n_calibration, used.reject.target_fpr, band):
        warnings.append(f"{empty[0].upper()}{empty[1:]}.")
    if fitted is None:
        warnings.append("The version does not say which images it was fitted to; use none of those.")
    shown = None if before is None else to_schema(model_settings.thresholds(before, settings))
    return RecalibrationResult(shown, after, to_schema(used), warnings)


def describe_differences(before: Calibration, after: Calibration) -> list[str]:
    """Name the statistics in which the new images differ from those of the calibration before.

    Scores, and mean and deviation of every scale's features, by the two-sample Kolmogorov-Smirnov test,
    Bonferroni over them: where both sets come from one law, the chance that any is named is at most 1 %. A
    difference is no error: another station has another light, and a calibration of its own for it. But it is
    also what defects among the images look like, or images of another part.
    """
    old, new = sorted_statistics(before), sorted_statistics(after)
    shared = [name for name in old if name in new]
    compared = [compare(name, old[name], np.asarray(new[name]), len(shared), rising=False) for name in shared]
    return [
        f"{one.name}: {'higher' if one.shift > 0 else 'lower'} than in the calibration before (distance "
        f"{one.distance:.2f}, shift {one.shift:+.2f})"
        for one in compared
        if one.reaches()
    ]
