"""Comparison of two versions of a category on the same test images: which decisions change."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.image_digests import CALIBRATION_IMAGES, FIT_IMAGES, ImageDigests, read_digests
from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.detector import Detector
from flows.fastflow.files.plain_files import file_hashes
from flows.fastflow.manifest import Precision
from training.data.layout import test_samples
from training.data.sample import DatasetError, Sample
from training.evaluation.scoring import ScoredSample, score_test_set
from training.terminal.progress import Progress

MAX_IMAGES = 200  # of a result


def compare_versions(
    data: Path,
    category: str,
    *,
    version: str,
    against: str | None,
    models: Path,
    device: str,
    precision: Precision,
    progress: Progress,
) -> dict[str, Any]:
    """Compare a version with another one, each with its own calibration; see `app.schemas.comparison`.

    Test images that either version was fitted to are left out. Images of a calibration stay.

    Args:
        against: the other version; None for the active one.

    Raises:
        BundleError, WeightsError, DatasetError, FileError, ImageError: with the reason.
    """
    folders = [resolve(models, category, name) for name in (against, version)]
    if folders[0] == folders[1]:
        raise DatasetError(f"{category}/{version} would be compared with itself; name another version")
    samples = test_samples(data, category)
    hashes = file_hashes([sample.path for sample in samples])
    fitted = [_digests(folder, FIT_IMAGES) for folder in folders]
    used = [
        (sample, sha256)
        for sample, sha256 in zip(samples, hashes, strict=True)
        if not any(sha256 in images for images in fitted)
    ]
    if not used:
        raise DatasetError("the versions were fitted to every one of the test images; set others aside")
    progress.say(f"{len(used)} of {len(samples)} test images are in neither version's fit")
    good = [sha256 for sample, sha256 in used if sample.defect is None]
    results, scored = [], []
    detector: Detector | None = None
    with progress.stage("evaluate", 2 * len(used)) as advance:
        for folder in folders:
            shared = None if detector is None else detector.scorer.extractor
            detector = Detector.load(folder, device=device, precision=precision, backbone=shared)
            rows, result = _measure(detector, [sample for sample, _ in used], advance)
            calibrated = _digests(folder, CALIBRATION_IMAGES)
            results.append(result | {"calibrated_good": sum(sha256 in calibrated for sha256 in good)})
            scored.append(rows)
    changed = [
        (before, after) for before, after in zip(*scored, strict=True) if before.decision != after.decision
    ]
    changed.sort(key=lambda pair: (_gain(*pair), -abs(pair[1].score - pair[0].score)))
    return {
        "category": category,
        "good": len(good),
        "defective": len(used) - len(good),
        "changed": len(changed),
        "before": results[0],
        "after": results[1],
        "images": [_describe(*pair, data / category) for pair in changed[:MAX_IMAGES]],
    }


def comparison_lines(comparison: dict[str, Any], shown: int = 20) -> list[str]:
    """Format a comparison for people."""
    lines = []
    for name in ("before", "after"):
        one = comparison[name]
        parts = []
        if comparison["good"]:
            share = f"{one['overkill']:.2%}"
            parts.append(f"rejects {one['rejected_good']} of {comparison['good']} good images ({share})")
        if comparison["defective"]:
            share = f"{one['escape']:.2%}"
            defective = comparison["defective"]
            parts.append(f"passes {one['passed_defective']} of {defective} defective ones ({share})")
        lines.append(f"{name:<6} {one['version']}, threshold {one['reject']:.4f}: {', '.join(parts)}")
    lines.append(f"decisions that change: {comparison['changed']}")
    for image in comparison["images"][:shown]:
        before, after = image["before"], image["after"]
        lines.append(
            f"  {image['path']}: {before['decision']} {before['score']:.4f} -> {after['decision']} "
            f"{after['score']:.4f}"
        )
    if comparison["changed"] > shown:
        lines.append(f"  and {comparison['changed'] - shown} more")
    return lines


def _digests(folder: Path, name: str) -> ImageDigests:
    return read_digests(folder, read_manifest(folder), name) or ImageDigests([])


def _measure(
    detector: Detector, samples: Sequence[Sample], advance: Callable[[float], None]
) -> tuple[list[ScoredSample], dict[str, Any]]:
    evaluation = score_test_set(detector, samples, advance)
    rows, thresholds = evaluation.rows, detector.calibrator.default_thresholds
    result = {
        "version": detector.manifest.version,
        "starter": detector.manifest.starter,
        "reject": thresholds.reject.reject,
        "review": thresholds.review,
        "rejected_good": sum(row.defect is None and row.decision == "REJECT" for row in rows),
        "rejected_defective": sum(row.defect is not None and row.decision == "REJECT" for row in rows),
        "passed_defective": sum(row.defect is not None and row.decision == "PASS" for row in rows),
        "overkill": evaluation.false_rejects,
        "escape": evaluation.escapes,
        "image_auroc": evaluation.figures.image_auroc,
    }
    return rows, result


def _gain(before: ScoredSample, after: ScoredSample) -> int:
    """Count the steps from PASS over REVIEW to REJECT that a decision moves in the right direction."""
    order = ("PASS", "REVIEW", "REJECT")
    steps = order.index(after.decision) - order.index(before.decision)
    return steps if after.defect is not None else -steps


def _describe(before: ScoredSample, after: ScoredSample, folder: Path) -> dict[str, Any]:
    scores = {
        name: {"score": row.score, "p_value": row.p_value, "decision": row.decision}
        for name, row in (("before", before), ("after", after))
    }
    return {"path": before.path.relative_to(folder).as_posix(), "kind": before.defect, **scores}
