"""New version of a model that has learned from reviewed images, without training images."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flows.fastflow.bundle.bundle import BundleError, read_manifest, read_verified
from flows.fastflow.bundle.image_digests import (
    CALIBRATION_IMAGES,
    FIT_IMAGES,
    ImageDigests,
    fingerprint,
    format_digests,
    read_digests,
)
from flows.fastflow.bundle.models_folder import publish, versions
from flows.fastflow.bundle.version_names import name_version
from flows.fastflow.calibration.calibrator import record_threshold
from flows.fastflow.calibration.conformal import compute_threshold
from flows.fastflow.detector import Detector
from flows.fastflow.engines.engine import pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.imaging.decoder import decode_image, read_image_bytes
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.inference.golden import score_golden
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.learning.descriptions import DESCRIPTIONS, Descriptions, read_descriptions
from flows.fastflow.learning.fit import MIN_DEVIATION, LearnedFit, fit_learned
from flows.fastflow.manifest import (
    Calibration,
    LearnedRecord,
    Manifest,
    Precision,
)
from flows.fastflow.model.learned import LearnedPart

# Digests of the reviewed images; FIT_IMAGES has them too, so that a later calibration refuses them.
REVIEWED_IMAGES = "learning/reviewed.txt"
# Pictures of the calibration images with the highest scores, which change with the scores.
_OUTDATED = "report/highest"
# Of two descriptions, in deviations of good images: the root mean square of the difference. Equal pixels give
# less than 0.001, two images of the development set 0.19 or more, and a JPEG copy 0.05 or more.
_SAME_PIXELS = 0.01
# Fields of a manifest that learning changes; the others tell the flow.
_CHANGED = {"version", "created", "learned", "calibration", "reduced", "thresholds", "golden", "files"}


class LearningError(ValueError):
    """Nothing can be learned; the message says why."""


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


def learn(
    bundle: Path,
    folder: Path,
    defects: Sequence[ReviewedImage],
    good: Sequence[ReviewedImage],
    device: str,
    progress: Callable[[float], None] = lambda _: None,
) -> Path:
    """Write a version with a part learned from reviewed images.

    The flow stays as it is. Calibration uses the same images as before, which neither the flow nor the
    learned part has seen, so thresholds keep their promise whatever the reviews say. A part that the version
    has learned before is replaced.

    Args:
        bundle: the version to start from, models/<category>/<version>.
        folder: folder to write to: <folder>/<category>/<version>.
        defects: images reviewed as defects.
        good: images reviewed as good; may be empty.
        device: see `Detector.load`.
        progress: called with the share of the images that are described.

    Returns:
        The new version's directory. Load it before it is moved into place: this replays its golden images.

    Raises:
        LearningError: too few images, unreadable ones, some that the version knows, nothing to gain, or a
            version that has learned from them.
        BundleError, EngineError: see `Detector.load`.
    """
    models = bundle.parent.parent
    detector = Detector.load(bundle, device=device)
    manifest = detector.manifest
    fitted = _require_new_images(bundle, manifest, [*defects, *good])
    reviews = fingerprint_reviews([image.sha256 for image in defects], [image.sha256 for image in good])
    if (same := find_learned(models, manifest, reviews)) is not None:
        raise LearningError(f"{manifest.category}/{same} has learned from these images already")
    known = read_descriptions(bundle, manifest)
    if known is None:
        raise LearningError(
            f"{manifest.category}/{manifest.version} has no descriptions of its good images; train it again"
        )
    head = detector.scorer.head
    before = None if head.learned is None else head.learned.cpu()
    head.learned = None
    described, scores = _describe(detector, [*defects, *good], progress)
    copies = _find_copies(described, known)
    is_defect = np.arange(len(described)) < len(defects)
    used, used_good = is_defect & ~copies, ~is_defect & ~copies
    fit = _fit(known, described[used_good], described[used], int(copies.sum()))
    part = LearnedPart(detector.scorer.extractor.channels)
    part.weights.copy_(torch.from_numpy(fit.weights))
    part.bias.fill_(fit.bias)
    head.learned = copy.deepcopy(part).to(detector.device)
    scorers = _scorers(detector, known)
    calibrations, held_out = _calibrate_all(manifest, known, scorers, part, before)
    thresholds = {
        name: record_threshold(made.scores, manifest.thresholds[name].target_fpr)
        for name, made in calibrations.items()
    }
    reject_before = _plain_threshold(manifest, known, before)
    alone = scores[used]
    record = LearnedRecord(
        defects=int(used.sum()),
        good=len(known.fitted) + int(used_good.sum()),
        copies=int(copies.sum()),
        reviews=reviews,
        strength=fit.strength,
        reject_before=reject_before,
        caught_before=int((alone > reject_before).sum()),
        caught=int((alone + fit.left_out > thresholds["float32"].reject).sum()),
    )
    files = _kept_files(bundle, manifest)
    reviewed = [image.sha256 for image in (*defects, *good)]
    files[FIT_IMAGES], files[REVIEWED_IMAGES] = format_digests([*fitted, *reviewed]), format_digests(reviewed)
    files[DESCRIPTIONS] = Descriptions(known.fitted, known.fitted_scores, held_out).to_bytes()
    tensors = {name: value.cpu().contiguous() for name, value in head.state_dict().items()}
    created, version = name_version(models / manifest.category, tensors)
    changes = {
        "version": version,
        "created": created,
        "learned": record,
        "calibration": calibrations.pop("float32"),
        "reduced": calibrations,
        "thresholds": thresholds,
        "golden": [
            score_golden(one.file, files[one.file], scorers, manifest.sample_bits) for one in manifest.golden
        ],
        "files": {},
    }
    return publish(folder, manifest.model_copy(update=changes), tensors, files)


def fingerprint_reviews(defects: Iterable[str], good: Iterable[str]) -> str:
    """Compute one sha256 for the sha256 of reviewed images and their verdicts."""
    return fingerprint([*(f"{sha256} defect" for sha256 in defects), *(f"{sha256} good" for sha256 in good)])


def find_learned(models: Path, manifest: Manifest, reviews: str) -> str | None:
    """Return a version of the same flow that has learned from these reviews, see `fingerprint_reviews`."""
    flow = manifest.model_dump(exclude=_CHANGED)
    for version in versions(models, manifest.category):
        try:
            other = read_manifest(models / manifest.category / version)
        except BundleError:  # damaged, so it cannot serve
            continue
        same = other.learned is not None and other.learned.reviews == reviews
        if same and other.model_dump(exclude=_CHANGED) == flow:
            return version
    return None


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


def _require_new_images(bundle: Path, manifest: Manifest, images: Sequence[ReviewedImage]) -> ImageDigests:
    """Refuse images of the training, and return those of the fit; earlier reviewed images are welcome."""
    fitted, calibrated = read_known_images(bundle, manifest)
    for known, use in ((fitted, "fitted to"), (calibrated, "calibrated with")):
        if found := next((image.name for image in images if image.sha256 in known), None):
            raise LearningError(
                f"the version was {use} {found} as a good part; take this image away. If it shows a defect, "
                "remove it from the training images and train again"
            )
    return fitted


def _describe(
    detector: Detector, images: Sequence[ReviewedImage], progress: Callable[[float], None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return descriptions (n, D) and scores (n,) of images, of which one at a time is in memory."""
    scorer = detector.scorer.describing()
    rows = np.empty((len(images), 2 * sum(scorer.extractor.channels)))
    scores = np.empty(len(images))
    for i, image in enumerate(images):
        progress(i / len(images))
        [scored] = scorer.score([_read(image, detector.manifest.sample_bits)])
        rows[i], scores[i] = scored.description, scored.score
    return rows, scores


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


def _fit(
    known: Descriptions, good: NDArray[np.float64], defects: NDArray[np.float64], copies: int
) -> LearnedFit:
    try:
        images = np.vstack((known.fitted, good)).astype(np.float64)
        fit = fit_learned(images, known.fitted_scores.astype(np.float64), defects)
    except ValueError as error:
        left_out = f"; left out as copies of each other or of training images: {copies}" if copies else ""
        raise LearningError(f"{error}{left_out}") from error
    if fit.strength == 0:
        raise LearningError(
            f"nothing learned: {len(defects)} defects left out one by one look no stranger to the learned "
            "part than good images; add others, and check that they are defects"
        )
    return fit


def _scorers(detector: Detector, known: Descriptions) -> dict[Precision, Scorer]:
    """Build a scorer for each precision that the version is calibrated for."""
    scorers: dict[Precision, Scorer] = {}
    for precision in known.held_out:
        try:
            scorers[precision] = detector.scorer.with_engine(pick_engine(precision, detector.device))
        except EngineError as error:
            raise LearningError(f"the version is calibrated for {precision}: {error}") from error
    return scorers


def _calibrate_all(
    manifest: Manifest,
    known: Descriptions,
    scorers: Iterable[Precision],
    part: LearnedPart,
    before: LearnedPart | None,
) -> tuple[dict[Precision, Calibration], dict[Precision, NDArray[np.float32]]]:
    """Return the calibrations with the learned part, and the descriptions of their images in new order."""
    calibrations, held_out = {}, {}
    for precision in scorers:
        calibration = manifest.calibration_of(precision)
        assert calibration is not None  # noqa: S101  (descriptions exist only for calibrations)
        rows = known.held_out[precision]
        order, calibrations[precision] = _calibrate(calibration, rows, part, before)
        held_out[precision] = rows[order]
    return calibrations, held_out


def _calibrate(
    calibration: Calibration, rows: NDArray[np.float32], part: LearnedPart, before: LearnedPart | None
) -> tuple[NDArray[np.int64], Calibration]:
    """Return the new order of the images, and their calibration with the learned part."""
    added = _parts(part, rows) - _parts(before, rows)
    scores = np.asarray(calibration.scores) + added
    order = np.argsort(scores, kind="stable")
    pictures, statistics = calibration.pictures, calibration.statistics
    changes = {
        "scores": scores[order].tolist(),
        "pictures": None if pictures is None else (np.asarray(pictures) + added)[order].tolist(),
        "statistics": None if statistics is None else [statistics[i] for i in order],
    }
    return order, calibration.model_copy(update=changes)


def _parts(part: LearnedPart | None, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    if part is None:
        return np.zeros(len(rows))
    return np.asarray(part(torch.from_numpy(rows)).double().numpy())


def _plain_threshold(manifest: Manifest, known: Descriptions, before: LearnedPart | None) -> float:
    """Compute the threshold in float32 of the flow alone."""
    scores = np.asarray(manifest.calibration.scores) - _parts(before, known.held_out["float32"])
    return compute_threshold(scores, manifest.thresholds["float32"].target_fpr).reject


def _kept_files(bundle: Path, manifest: Manifest) -> dict[str, bytes]:
    """Read the files of the version that stay true."""
    return {
        name: read_verified(bundle, manifest, name, FILE_LIMITS.max_bytes)
        for name in manifest.files
        if name.startswith(("golden/", "report/")) and not name.startswith(_OUTDATED)
    }
