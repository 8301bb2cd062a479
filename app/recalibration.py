"""Recalibration with good images, without training: which images are allowed, and how they differ."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from app import verdict
from app.calibrations import Renewal, Slot
from app.category_settings import CategorySettings
from app.history.comparison import Comparison, compare
from app.history.references import samples
from flows.fastflow.calibration import Calibrator, Measurement, calibrate
from flows.fastflow.fit_pictures import FitPictures, fingerprint
from flows.fastflow.listing import some
from flows.fastflow.manifest import Calibration
from flows.fastflow.review_band import say_empty_band

_NAMED: Final = 5  # of pictures that are refused, in a message


class UnfitPicturesError(ValueError):
    """Pictures that a calibration must not be made of; the message names them."""


@dataclass(frozen=True)
class Measured:
    """A good picture that was scored.

    Attributes:
        sha256: of its file.
        measurement: what the calibration takes from it.
    """

    sha256: str
    measurement: Measurement


def expect_fit_to_calibrate(pictures: Sequence[tuple[str, str]], fitted: FitPictures | None) -> None:
    """Refuse pictures that would make the promise of a calibration void.

    Args:
        pictures: the name and the sha256 of each.
        fitted: those that the model was fitted to; None where nobody knows.

    Raises:
        UnfitPicturesError: there are none, one is there twice, or the model was fitted to one.
    """
    if not pictures:
        raise UnfitPicturesError("A calibration needs good pictures; none came.")
    seen = [name for name, sha256 in pictures if fitted is not None and sha256 in fitted]
    if seen:
        raise UnfitPicturesError(
            f"The model was fitted to {_some(seen)}: it scores them lower than other good parts, and the "
            "threshold would reject more than it promises. Take pictures that no training has read."
        )
    counts = Counter(sha256 for _, sha256 in pictures)
    twice = [name for name, sha256 in pictures if counts[sha256] > 1]
    if twice:
        raise UnfitPicturesError(
            f"These pictures are copies of each other, byte for byte: {_some(twice)}. One part counted twice "
            "promises what it cannot keep; send each once."
        )


def renewal(slot: Slot, pictures: Sequence[Measured], *, target_fpr: float, by: str, reason: str) -> Renewal:
    """Calibrate with good images that the model was not fitted to."""
    return Renewal(
        category=slot.manifest.category,
        version=slot.manifest.version,
        manifest_sha256=slot.sha256,
        precision=slot.precision,
        station=slot.station,
        created=datetime.now(UTC),
        by=by,
        reason=reason,
        pictures=fingerprint([picture.sha256 for picture in pictures]),
        target_fpr=target_fpr,
        calibration=calibrate([picture.measurement for picture in pictures], target_fpr),
    )


def unlike(before: Calibration, after: Calibration) -> list[Comparison]:
    """Return the statistics in which the new images differ from those of the calibration before.

    Scores, and mean and deviation of every scale's features, by the two-sample Kolmogorov-Smirnov test,
    Bonferroni over them: where both sets come from one law, the chance that any is named is at most 1 %. A
    difference is no error: another station has another light, and a calibration of its own for it. But it is
    also what defects among the pictures look like, or pictures of another part.
    """
    old, new = samples(before), samples(after)
    shared = [name for name in old if name in new]
    compared = [compare(name, old[name], np.asarray(new[name]), len(shared), rising=False) for name in shared]
    return [one for one in compared if one.reaches()]


def warnings_of(
    before: Calibrator | None, after: Calibrator, settings: CategorySettings, fitted: FitPictures | None
) -> list[str]:
    """Return sentences about a new calibration that a person should read.

    Args:
        before: the calibration that it replaces; None where there was none.
        after: the new one.
        settings: of the category.
        fitted: images that the model was fitted to; None where nobody knows.
    """
    warnings = []
    if before is not None:
        warnings = [say_unlike(one) for one in unlike(before.calibration, after.calibration)]
    rejected = verdict.thresholds(after, settings).reject
    band = verdict.review_fpr(after, settings)
    if empty := say_empty_band(rejected.n_calibration, rejected.target_fpr, band):
        warnings.append(f"{empty[0].upper()}{empty[1:]}.")
    if fitted is None:
        warnings.append("The version does not say which images it was fitted to; use none of those.")
    return warnings


def say_unlike(one: Comparison) -> str:
    """A sentence about a statistic that differs."""
    direction = "higher" if one.shift > 0 else "lower"
    return (
        f"{one.name}: {direction} than in the calibration before (distance {one.distance:.2f}, shift "
        f"{one.shift:+.2f})"
    )


def _some(names: Sequence[str]) -> str:
    return some([name[:64] for name in names], _NAMED)
