"""The content of summary.json, and sentences about it for the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from flows.fastflow.calibration.conformal import ConformalThreshold, false_reject_band
from training.evaluation.ranking import RankingFigures
from training.evaluation.scoring import Evaluation

# The metrics of the reports, in their order, with their titles.
METRICS = {
    "image_auroc": "image AUROC",
    "image_average_precision": "image AP",
    "image_f1_max": "image F1-max",
    "recall_at_1_percent": "recall at 1 %",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro_0.3": "AUPRO 0.3",
    "aupro_0.05": "AUPRO 0.05",
    "aupimo": "AUPIMO",
}

# Values that are averaged over categories.
AVERAGED = (*METRICS, "recall", "false_rejects")


def percentage(value: float, digits: int) -> str:
    """Format a share in percent; more digits than `digits` if it would round to 0 or 100.

    One escape in a thousand defects must not read as none.
    """
    text = f"{100 * value:.{digits}f}"
    return percentage(value, digits + 1) if 0 < value < 1 and float(text) in (0, 100) and digits < 9 else text


def metric_values(figures: RankingFigures) -> dict[str, float | None]:
    """Collect the values of `METRICS`; None if they cannot be measured on these images."""
    pixels = figures.pixels
    return {
        "image_auroc": figures.image_auroc,
        "image_average_precision": figures.image_average_precision,
        "image_f1_max": figures.image_f1_max.value if figures.image_f1_max else None,
        "recall_at_1_percent": figures.recall_at_1_percent,
        "pixel_auroc": pixels.auroc if pixels else None,
        "pixel_average_precision": pixels.average_precision if pixels else None,
        "pixel_f1_max": pixels.f1_max.value if pixels else None,
        "aupro_0.3": pixels.aupro[0.3] if pixels else None,
        "aupro_0.05": pixels.aupro[0.05] if pixels else None,
        "aupimo": pixels.aupimo if pixels else None,
    }


@dataclass(frozen=True)
class TestSetRecord:
    """The test set of an evaluation, and the images left out of it.

    Attributes:
        test_fingerprint: digest of the test images' contents, labels and masks; results of different
            digests do not compare.
        same_parts: number of good test images that show a part of the training images, by their names.
        seen: number of images left out because training had them.
        copies: number of images left out as byte-for-byte copies of others.
        near_copies: images that are almost training images; they stay in the test set, see
            `training.evaluation.near_copies`.
        compared_with: number of training images in that comparison; 0 if there was none.
        passed_over: number of unused images in the test folders,
            see `training.data.check.unused_images.unused_test_images`.
        mask_folders: number of images with a folder as mask, as in MVTec LOCO AD.
    """

    data: str = ""
    test_fingerprint: str = ""
    same_parts: int = 0
    seen: int = 0
    copies: int = 0
    near_copies: Sequence[str] = ()
    compared_with: int = 0
    passed_over: int = 0
    mask_folders: int = 0


def summarise(
    category: str,
    version: str,
    engine: str,
    threshold: ConformalThreshold,
    evaluation: Evaluation,
    tested_on: TestSetRecord = TestSetRecord(),
) -> dict[str, Any]:
    """Build the summary of one category."""
    good = sum(row.defect is None for row in evaluation.rows)
    pixels = evaluation.figures.pixels
    return {
        "category": category,
        "version": version,
        "good": good,
        "defective": len(evaluation.rows) - good,
        **asdict(tested_on),
        "with_mask": evaluation.figures.masked,
        "regions": pixels.regions if pixels else 0,
        **metric_values(evaluation.figures),
        "false_rejects": evaluation.false_rejects,
        "escapes": evaluation.escapes,
        "recall": evaluation.recall,
        "expected_rejects": _expected_rejects(threshold, evaluation, good),
        "reviews": None if evaluation.reviews is None else asdict(evaluation.reviews),
        "target_fpr": threshold.target_fpr,
        "certified": threshold.certified,
        "achievable_fpr": threshold.achievable_fpr,
        "fpr_at_95_confidence": threshold.fpr_at_95_confidence,
        "defects": {defect: asdict(found) for defect, found in evaluation.defects.items()},
        "flow_alone": None if evaluation.flow_alone is None else asdict(evaluation.flow_alone),
        "operating_points": [asdict(point) for point in evaluation.operating_points],
        "milliseconds": evaluation.milliseconds,
        "engine": engine,
        "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_learned(summary: Mapping[str, Any]) -> str | None:
    """Compare the results with those of the flow alone; None for a version that has learned nothing."""
    before = summary["flow_alone"]
    if before is None or before["image_auroc"] is None:
        return None
    line = (
        f"learned from {before['defects']} reviewed defects; the flow alone has image AUROC "
        f"{before['image_auroc']:.3f}"
    )
    if before["recall"] is not None:
        line += f", and at its threshold finds {percentage(before['recall'], 2)} % of the defects"
    return line


def describe_passed_over(summary: Mapping[str, Any]) -> str | None:
    """Describe unused images in the test folders; None if there are none."""
    if not (count := summary["passed_over"]):
        return None
    return (
        f"{count} {'image' if count == 1 else 'images'} in the test folders are not used: they lie in "
        "unexpected folders or cannot be read; `flowgauge data check` lists them"
    )


def describe_mask_folders(summary: Mapping[str, Any]) -> str | None:
    """Explain why AUPRO does not compare with sPRO if masks are folders; None if none is."""
    if not summary["mask_folders"]:
        return None
    return (
        f"the masks of {summary['mask_folders']} test images are folders, whose images are united: AUPRO "
        "does not compare with the published sPRO of MVTec LOCO AD, which counts each image as a region and "
        "saturates its overlap"
    )


def describe_times(comparison: Sequence[Mapping[str, Any]]) -> str:
    """Explain the times of a comparison, and why one is left out."""
    line = (
        "times: of the fit without reading images (the flow's where the version was trained, and without "
        "the backbone's features, which are kept), and the model's for an image"
    )
    left_out = [
        f"; that of {row['model']} is left out, for by {row['engine']} it does not compare with those by a "
        "CPU"
        for row in comparison
        if row["milliseconds"] is None
    ]
    return "".join([line, *left_out])


def _expected_rejects(threshold: ConformalThreshold, evaluation: Evaluation, good: int) -> list[int] | None:
    """Compute the 95 % interval of rejected good test images that chance alone gives."""
    if not good or not evaluation.independent:
        return None
    return list(false_reject_band(threshold.n_calibration, good, threshold.target_fpr, confidence=0.95))


def exceeds_chance(summary: Mapping[str, Any]) -> bool:
    """Tell if more good test images are rejected than chance explains."""
    expected = summary["expected_rejects"]
    return expected is not None and round(summary["false_rejects"] * summary["good"]) > expected[1]


def means(summaries: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Average each value over the categories that have it; None if none has."""
    averages: dict[str, float | None] = {}
    for key in AVERAGED:
        values = [s[key] for s in summaries if s.get(key) is not None]
        averages[key] = fmean(values) if values else None
    return averages
