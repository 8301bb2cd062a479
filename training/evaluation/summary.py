"""An evaluation as plain numbers: what summary.json holds, and what the reports show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from flows.fastflow.calibration.conformal import ConformalThreshold, false_reject_band
from training.evaluation.ranking import RankingFigures
from training.evaluation.scoring import Evaluation

# The figures that rank models, in the order in which they are shown.
METRICS = {
    "image_auroc": "image AUROC",
    "image_average_precision": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro_0.3": "AUPRO 0.3",
    "aupro_0.05": "AUPRO 0.05",
    "aupimo": "AUPIMO",
}

# What is averaged over categories.
AVERAGED = (*METRICS, "recall", "false_rejects")


def percentage(value: float, digits: int) -> str:
    """A share in percent with so many digits after the point, or more where it would be rounded to 0 or 100.

    One escape of a thousand defects is not none.
    """
    text = f"{100 * value:.{digits}f}"
    return percentage(value, digits + 1) if 0 < value < 1 and float(text) in (0, 100) and digits < 9 else text


def metrics(figures: RankingFigures) -> dict[str, float | None]:
    """The figures of `METRICS`; None for what cannot be measured on these images."""
    pixels = figures.pixels
    return {
        "image_auroc": figures.image_auroc,
        "image_average_precision": figures.image_average_precision,
        "image_f1_max": figures.image_f1_max.value if figures.image_f1_max else None,
        "pixel_auroc": pixels.auroc if pixels else None,
        "pixel_average_precision": pixels.average_precision if pixels else None,
        "pixel_f1_max": pixels.f1_max.value if pixels else None,
        "aupro_0.3": pixels.aupro[0.3] if pixels else None,
        "aupro_0.05": pixels.aupro[0.05] if pixels else None,
        "aupimo": pixels.aupimo if pixels else None,
    }


@dataclass(frozen=True)
class TestSetRecord:
    """What was measured on, and how many test images were left out.

    Attributes:
        data: the category's folder.
        test_fingerprint: digest of the test images' contents, labels and masks; figures on others do
            not compare.
        same_parts: good test images of parts of which there are training images, as names tell.
        seen: those that training had.
        copies: later copies of others, byte for byte.
        near_copies: those that nearly are training images, and are measured all the same, see
            `training.evaluation.near_copies`.
        compared_with: how many training images these were looked for among; 0: they were not.
        passed_over: images in the test's folders that have no part in anything, as those that lie too deep,
            see `training.data.check.unused_images.unused_test_images`.
        mask_folders: those of which a mask is a folder, as in MVTec LOCO AD.
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
    """What summary.json says of one category."""
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
        **metrics(evaluation.figures),
        "false_rejects": evaluation.false_rejects,
        "escapes": evaluation.escapes,
        "recall": evaluation.recall,
        "expected_rejects": _expected_rejects(threshold, evaluation, good),
        "reviews": None if evaluation.reviews is None else asdict(evaluation.reviews),
        "target_fpr": threshold.target_fpr,
        "certified": threshold.certified,
        "achievable_fpr": threshold.achievable_fpr,
        "defects": {
            d.defect: {"count": d.count, "image_auroc": d.image_auroc, "recall": d.recall}
            for d in evaluation.defects
        },
        "operating_points": [asdict(point) for point in evaluation.operating_points],
        "milliseconds": evaluation.milliseconds,
        "engine": engine,
        "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_passed_over(summary: Mapping[str, Any]) -> str | None:
    """A line about images in the test's folders that are not tested on; None where there are none."""
    if not (count := summary["passed_over"]):
        return None
    return (
        f"{count} {'image' if count == 1 else 'images'} in the test's folders had no part in this: they "
        "lie where none are looked for, or cannot be read; the data check says where"
    )


def describe_mask_folders(summary: Mapping[str, Any]) -> str | None:
    """A line about masks that are folders, whose images are united here; None where there are none."""
    if not summary["mask_folders"]:
        return None
    return (
        f"the masks of {summary['mask_folders']} test images are folders, whose images are united: AUPRO "
        "does not compare with the sPRO that is published for MVTec LOCO AD, which counts each of them as a "
        "region of its own and full from its saturation area on"
    )


def describe_times(comparison: Sequence[Mapping[str, Any]]) -> str:
    """A line about the times of a comparison: what they are of, and why one is left out."""
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
    """How many good test images chance alone lets be rejected, in 95 of 100 calibrations."""
    if not good or not evaluation.independent:
        return None
    return list(false_reject_band(threshold.n_calibration, good, threshold.target_fpr, confidence=0.95))


def exceeds_chance(summary: Mapping[str, Any]) -> bool:
    """Whether more good test images are rejected than the calibration lets expect by chance."""
    expected = summary["expected_rejects"]
    return expected is not None and round(summary["false_rejects"] * summary["good"]) > expected[1]


def means(summaries: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of every figure over the categories that have it; None where none has."""
    found: dict[str, float | None] = {}
    for key in AVERAGED:
        values = [s[key] for s in summaries if s.get(key) is not None]
        found[key] = fmean(values) if values else None
    return found
