"""New version of a model that has learned from reviewed images, without training images."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from flows.fastflow.bundle.bundle import read_manifest, read_verified
from flows.fastflow.bundle.image_digests import FIT_IMAGES, format_digests
from flows.fastflow.bundle.publication import publish
from flows.fastflow.bundle.version_names import name_version
from flows.fastflow.calibration.calibrator import record_threshold
from flows.fastflow.detector import Detector
from flows.fastflow.engines.engine import pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.inference.golden import score_golden
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.learning.descriptions import DESCRIPTIONS, Descriptions, read_descriptions
from flows.fastflow.learning.fit import LearnedFit, fit_learned
from flows.fastflow.learning.reviewed import (
    REVIEWED_IMAGES,
    DescribedImages,
    LearningError,
    ReviewedImage,
    describe_reviewed,
    has_no_descriptions,
    require_new_images,
)
from flows.fastflow.manifest import LearnedRecord, Manifest, Precision, ThresholdRecord
from flows.fastflow.model.learned import LearnedPart

# Pictures of the calibration images with the highest scores, which change with the scores.
_OUTDATED = "report/highest"


def learn(
    bundle: Path,
    folder: Path,
    defects: Sequence[ReviewedImage],
    good: Sequence[ReviewedImage],
    device: str,
    advance: Callable[[int], None] = lambda _: None,
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
        advance: called with the number of images that were read since the last call.

    Returns:
        The new version's directory. Load it before it is moved into place: this replays its golden images.

    Raises:
        LearningError: a starter, too few images, unreadable ones, some that the version knows, nothing to
            gain, or a version that has learned from them.
        BundleError, EngineError: see `Detector.load`.
    """
    if read_manifest(bundle).starter:
        raise LearningError("a starter cannot learn from reviews; train without --starter first")
    detector = Detector.load(bundle, device=device)
    manifest, head = detector.manifest, detector.scorer.head
    fitted, reviews = require_new_images(bundle, manifest, defects, good)
    known = _require_descriptions(bundle, manifest)
    if head.learned is not None:
        manifest, known = _calibrate(manifest, known, head.learned.cpu(), -1)
        head.learned = None
    reviewed = describe_reviewed(detector, defects, good, known, advance)
    fit = _fit(known, reviewed)
    part = _build_part(fit, detector.scorer.extractor.channels)
    after, described = _calibrate(manifest, known, part, 1)
    files = _kept_files(bundle, manifest)
    digests = [image.sha256 for image in (*defects, *good)]
    files[FIT_IMAGES], files[REVIEWED_IMAGES] = format_digests([*fitted, *digests]), format_digests(digests)
    files[DESCRIPTIONS] = described.to_bytes()
    head.learned = copy.deepcopy(part).to(detector.device)
    tensors = {name: value.cpu().contiguous() for name, value in head.state_dict().items()}
    created, version = name_version(bundle.parent, tensors)
    scorers = _scorers(detector, known)
    golden = [
        score_golden(one.file, files[one.file], scorers, manifest.sample_bits) for one in manifest.golden
    ]
    thresholds = manifest.thresholds["float32"], after.thresholds["float32"]
    learned = _record(known, reviewed, fit, *thresholds, reviews)
    changes = {"version": version, "created": created, "learned": learned, "golden": golden, "files": {}}
    return publish(folder, after.model_copy(update=changes), tensors, files)


def _require_descriptions(bundle: Path, manifest: Manifest) -> Descriptions:
    known = read_descriptions(bundle, manifest)
    if known is None:
        raise has_no_descriptions(manifest)
    return known


def _fit(known: Descriptions, reviewed: DescribedImages) -> LearnedFit:
    try:
        images = np.vstack((known.fitted, reviewed.good)).astype(np.float64)
        fit = fit_learned(images, known.fitted_scores.astype(np.float64), reviewed.defects)
    except ValueError as error:
        left_out = ""
        if reviewed.copies:
            left_out = f"; left out as copies of each other or of training images: {reviewed.copies}"
        raise LearningError(f"{error}{left_out}") from error
    if fit.strength == 0:
        raise LearningError(
            f"nothing learned: {len(reviewed.defects)} defects left out one by one look no stranger to the "
            "learned part than good images; add others, and check that they are defects"
        )
    return fit


def _build_part(fit: LearnedFit, channels: Sequence[int]) -> LearnedPart:
    part = LearnedPart(channels)
    part.weights.copy_(torch.from_numpy(fit.weights))
    part.bias.fill_(fit.bias)
    return part


def _scorers(detector: Detector, known: Descriptions) -> dict[Precision, Scorer]:
    """Build a scorer for each precision that the version is calibrated for."""
    scorers: dict[Precision, Scorer] = {}
    for precision in known.held_out:
        try:
            scorers[precision] = detector.scorer.with_engine(pick_engine(precision, detector.device))
        except EngineError as error:
            raise LearningError(f"the version is calibrated for {precision}: {error}") from error
    return scorers


def _calibrate(
    manifest: Manifest, known: Descriptions, part: LearnedPart, sign: Literal[1, -1]
) -> tuple[Manifest, Descriptions]:
    """Add a part to the calibrations' scores, or take it away, and sort the images by them again."""
    calibrations, thresholds, held_out = {}, {}, {}
    for precision, rows in known.held_out.items():
        calibration = manifest.calibration_of(precision)
        assert calibration is not None  # noqa: S101  (descriptions exist only for calibrations)
        added = sign * part(torch.from_numpy(rows)).double().numpy()
        scores = np.asarray(calibration.scores) + added
        order = np.argsort(scores, kind="stable")
        pictures, statistics = calibration.pictures, calibration.statistics
        changes = {
            "scores": scores[order].tolist(),
            "pictures": None if pictures is None else (np.asarray(pictures) + added)[order].tolist(),
            "statistics": None if statistics is None else [statistics[i] for i in order],
        }
        made = calibrations[precision] = calibration.model_copy(update=changes)
        thresholds[precision] = record_threshold(made, manifest.thresholds[precision].target_fpr)
        held_out[precision] = rows[order]
    by_engine = {
        "calibration": calibrations.pop("float32"),
        "reduced": calibrations,
        "thresholds": thresholds,
    }
    return manifest.model_copy(update=by_engine), replace(known, held_out=held_out)


def _record(
    known: Descriptions,
    reviewed: DescribedImages,
    fit: LearnedFit,
    before: ThresholdRecord,
    after: ThresholdRecord,
    reviews: str,
) -> LearnedRecord:
    """Record what was learned, and its effect on the defects by thresholds in float32."""
    return LearnedRecord(
        defects=len(reviewed.defects),
        good=len(known.fitted) + len(reviewed.good),
        copies=reviewed.copies,
        reviews=reviews,
        strength=fit.strength,
        reject_before=before.reject,
        caught_before=int((reviewed.scores > before.reject).sum()),
        caught=int((reviewed.scores + fit.left_out > after.reject).sum()),
    )


def _kept_files(bundle: Path, manifest: Manifest) -> dict[str, bytes]:
    """Read the files of the version that stay true."""
    return {
        name: read_verified(bundle, manifest, name, FILE_LIMITS.max_bytes)
        for name in manifest.files
        if name.startswith(("golden/", "report/")) and not name.startswith(_OUTDATED)
    }
