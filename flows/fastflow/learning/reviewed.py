"""Images that people reviewed, and what a version knows of them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.bundle.image_digests import (
    CALIBRATION_IMAGES,
    FIT_IMAGES,
    ImageDigests,
    fingerprint,
    read_digests,
)
from flows.fastflow.bundle.models_folder import versions
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import decode_image, read_image_bytes
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.inference.tile_outputs import NotNumbersError
from flows.fastflow.learning.descriptions import Descriptions
from flows.fastflow.learning.fit import MIN_DEVIATION
from flows.fastflow.manifest import Manifest

# Digests of the reviewed images; FIT_IMAGES has them too, so that a later calibration refuses them.
REVIEWED_IMAGES = "learning/reviewed.txt"
# Of two descriptions, in deviations of good images: the root mean square of the difference. Equal pixels give
# less than 0.001, two images of the development set 0.19 or more, and a JPEG copy 0.05 or more.
_SAME_PIXELS = 0.01


class LearningError(ValueError):
    """Nothing can be learned; the message says why."""


def has_no_descriptions(manifest: Manifest) -> LearningError:
    """Return the error of a version without descriptions of its good images."""
    name = f"{manifest.category}/{manifest.version}"
    return LearningError(f"{name} has no descriptions of its good images; train it again")


def has_learned_already(category: str, version: str) -> LearningError:
    """Return the error of images that a version has learned from."""
    return LearningError(f"{category}/{version} has learned from these images already")


@dataclass(frozen=True)
class ReviewedImage:
    """Image that a person reviewed.

    Attributes:
        name: its name in messages.
        path: its file.
        sha256: sha256 of the file.
    """

    name: str
    path: Path
    sha256: str


class DescribedImages(NamedTuple):
    """Descriptions of reviewed images, each once.

    Attributes:
        defects, good: (n, D) each, see `learned.describe`.
        scores: scores of the defects.
        copies: number of images left out, because they have the pixels of others or of training images.
    """

    defects: NDArray[np.float64]
    good: NDArray[np.float64]
    scores: NDArray[np.float64]
    copies: int


def fingerprint_reviews(defects: Iterable[str], good: Iterable[str]) -> str:
    """Compute one sha256 for the sha256 of reviewed images and their verdicts."""
    return fingerprint([*(f"{sha256} defect" for sha256 in defects), *(f"{sha256} good" for sha256 in good)])


def find_learned(models: Path, manifest: Manifest, reviews: str) -> str | None:
    """Return a version of the same flow that has learned from these reviews, see `fingerprint_reviews`."""
    flow = _describe_flow(manifest)
    for version in versions(models, manifest.category):
        try:
            other = read_manifest(models / manifest.category / version)
        except BundleError:  # damaged, so it cannot serve
            continue
        same = other.learned is not None and other.learned.reviews == reviews
        if same and _describe_flow(other) == flow:
            return version
    return None


def _describe_flow(manifest: Manifest) -> dict[str, object]:
    """Return the fields of a manifest that learning does not change, and the rates."""
    changed = {"version", "created", "learned", "calibration", "reduced", "thresholds", "golden", "files"}
    rates = {name: record.target_fpr for name, record in manifest.thresholds.items()}
    return {**manifest.model_dump(exclude=changed), "rates": rates}


def read_known_images(bundle: Path, manifest: Manifest) -> tuple[ImageDigests, ImageDigests]:
    """Return the images that a version was fitted to, without reviewed ones, and those of its calibration.

    Raises:
        BundleError: see `read_digests`.
    """
    fitted, calibrated, reviewed = (
        read_digests(bundle, manifest, name) or ImageDigests([])
        for name in (FIT_IMAGES, CALIBRATION_IMAGES, REVIEWED_IMAGES)
    )
    return ImageDigests({*fitted} - {*reviewed}), calibrated


def require_new_images(
    bundle: Path, manifest: Manifest, defects: Sequence[ReviewedImage], good: Sequence[ReviewedImage]
) -> tuple[ImageDigests, str]:
    """Return the images of the fit, see `read_known_images`, and the fingerprint of the reviews.

    Raises:
        LearningError: an image is of the training, or another version has learned from the same reviews.
    """
    fitted, calibrated = read_known_images(bundle, manifest)
    for known, use in ((fitted, "fitted to"), (calibrated, "calibrated with")):
        if found := next((image.name for image in (*defects, *good) if image.sha256 in known), None):
            raise LearningError(
                f"the version was {use} {found} as a good part; take this image away. If it shows a defect, "
                "remove it from the training images and train again"
            )
    reviews = fingerprint_reviews([image.sha256 for image in defects], [image.sha256 for image in good])
    if (same := find_learned(bundle.parent.parent, manifest, reviews)) is not None:
        raise has_learned_already(manifest.category, same)
    return fitted, reviews


def describe_reviewed(
    detector: Detector,
    defects: Sequence[ReviewedImage],
    good: Sequence[ReviewedImage],
    known: Descriptions,
    advance: Callable[[int], None],
) -> DescribedImages:
    """Describe images, of which one at a time is in memory.

    Raises:
        LearningError: an image cannot be read or scored; it is named.
    """
    images = [*defects, *good]
    scorer = detector.scorer.describing()
    rows = np.empty((len(images), 2 * sum(scorer.extractor.channels)))
    scores = np.empty(len(images))
    for i, image in enumerate(images):
        try:
            [scored] = scorer.score([_read(image, detector.manifest.sample_bits)])
        except NotNumbersError as error:
            raise LearningError(f"{image.name}: {error}") from error
        rows[i], scores[i] = scored.description, scored.score
        advance(1)
    copies = _find_copies(rows, known)
    is_defect = np.arange(len(images)) < len(defects)
    used = is_defect & ~copies
    return DescribedImages(rows[used], rows[~is_defect & ~copies], scores[used], int(copies.sum()))


def _read(image: ReviewedImage, sample_bits: int) -> NDArray[np.uint8]:
    try:
        data = read_image_bytes(image.path)
        if hashlib.sha256(data).hexdigest() == image.sha256:
            return decode_image(data, FILE_LIMITS, sample_bits)
    except OSError as error:
        raise LearningError(f"{image.name} is gone") from error
    except ImageError as error:
        raise LearningError(f"{image.name}: {error}") from error
    raise LearningError(f"{image.name} was changed")


def _find_copies(described: NDArray[np.float64], known: Descriptions) -> NDArray[np.bool_]:
    """Find images with the pixels of a training image or an earlier one, whatever their files."""
    deviation = np.maximum(known.fitted.std(0), MIN_DEVIATION)
    rows = np.vstack((known.fitted, known.held_out["float32"], described)) / deviation
    first = len(rows) - len(described)
    nearest = [np.square(rows[:i] - rows[i]).mean(1).min() for i in range(first, len(rows))]
    return np.sqrt(nearest) < _SAME_PIXELS
