"""The results of an evaluation as lines for a terminal."""

from collections.abc import Sequence
from typing import Any

from flows.fastflow.calibration.conformal import ConformalThreshold, describe_promise
from flows.fastflow.calibration.review_band import describe_empty_band
from training.evaluation.evaluate import EvaluatedVersion
from training.evaluation.near_copies import describe_near_copies
from training.evaluation.operating_points import OperatingPoint, Share
from training.evaluation.summary import (
    METRICS,
    describe_learned,
    describe_mask_folders,
    describe_passed_over,
    describe_times,
    exceeds_chance,
    means,
    percentage,
)
from training.terminal.columns import aligned


def report_lines(version: EvaluatedVersion) -> list[str]:
    """Format the results of one category."""
    summary, threshold = version.summary, version.threshold
    lines = [
        f"{version.bundle}: {summary['good']} good and {summary['defective']} defective test images",
        *_left_out_lines(summary),
        *_ranking_lines(summary),
    ]
    if summary["false_rejects"] is not None:
        lines += _promise_lines(summary, threshold, independent=version.evaluation.independent)
    if summary["escapes"] is not None:
        lines.append(f"{percentage(summary['escapes'], 2)}% of defective parts passed")
        table = [["defect", "images", "image AUROC", "recall"]]
        table += [
            [name, str(kind["count"]), _figure(kind["image_auroc"]), _percent(kind["recall"])]
            for name, kind in summary["defects"].items()
        ]
        lines += _indented(table)
    if summary["reviews"] is not None:
        reviews = summary["reviews"]
        empty = describe_empty_band(threshold.n_calibration, threshold.target_fpr, reviews["review_fpr"])
        lines.append(empty or _review_line(reviews))
    intervals = ", with 95 % intervals of what was seen" if version.evaluation.independent else ""
    lines.append(f"thresholds of other rates{intervals}:")
    lines += _indented(_rate_table(version.evaluation.operating_points))
    if "comparison" in summary:
        lines += _comparison_lines(summary["comparison"])
    lines.append(f"scores of every image: {version.folder / 'scores.csv'}")
    lines.append(f"report: {version.report}")
    return lines


def _left_out_lines(summary: dict[str, Any]) -> list[str]:
    """Report the test images left out, and those that flatter the results."""
    seen, same_parts, copies = summary["seen"], summary["same_parts"], summary["copies"]
    lines = [
        seen and f"left out: {seen} test images that the model was fitted to or calibrated with",
        same_parts
        and f"{same_parts} good test images show parts of which there are training images, as their names "
        "tell: figures on them flatter",
        describe_near_copies(summary["near_copies"], summary["compared_with"]),
        copies and f"left out: {copies} test images that are copies of others, byte for byte",
        describe_passed_over(summary),
    ]
    return [line for line in lines if line]


def _ranking_lines(summary: dict[str, Any]) -> list[str]:
    """Format the ranking metrics of images and pixels."""
    if summary["image_auroc"] is None:
        lines = ["image AUROC not measured: it needs good and defective test images"]
    else:
        lines = [
            f"image AUROC {summary['image_auroc']:.3f}",
            f"image AP {summary['image_average_precision']:.3f}, F1-max {summary['image_f1_max']:.3f}, "
            f"recall at 1 % of the good test images {_percent(summary['recall_at_1_percent'])}",
        ]
    if (text := describe_learned(summary)) is not None:
        lines.append(text)
    if summary["pixel_auroc"] is None:
        why = "no pixel is good" if summary["with_mask"] else "no defect has a mask"
        return [*lines, f"pixel AUROC not measured: {why}"]
    without = summary["defective"] - summary["with_mask"]
    left_out = f" ({without} defective images without a mask left out)" if without else ""
    lines.append(f"pixel AUROC {summary['pixel_auroc']:.3f}{left_out}")
    aupimo = summary["aupimo"]
    measured = "not measured, too few good pixels" if aupimo is None else f"{aupimo:.3f}"
    lines.append(
        f"pixel AP {summary['pixel_average_precision']:.3f}, F1-max {summary['pixel_f1_max']:.3f}, "
        f"AUPRO {summary['aupro_0.3']:.3f} up to 30 % and {summary['aupro_0.05']:.3f} up to 5 %, "
        f"AUPIMO {measured}"
    )
    return lines if (text := describe_mask_folders(summary)) is None else [*lines, text]


def _comparison_lines(comparison: Sequence[dict[str, Any]]) -> list[str]:
    rows = [["model", *METRICS.values(), "recall", "false rejects", "fit s", "ms", "engine"]]
    rows += [
        [
            peer["model"],
            *(_figure(peer[key]) for key in METRICS),
            _percent(peer["recall"]),
            _percent(peer["false_rejects"]),
            f"{peer['fit_seconds']:.0f}",
            "-" if peer["milliseconds"] is None else f"{peer['milliseconds']:.0f}",
            peer["engine"],
        ]
        for peer in comparison
    ]
    head = "same images, backbone, stages and size; thresholds by the same rule:"
    return [head, *_indented(rows), describe_times(comparison)]


def _promise_lines(summary: dict[str, Any], threshold: ConformalThreshold, *, independent: bool) -> list[str]:
    """Compare the good parts rejected with the promised rate."""
    seen = f"{percentage(summary['false_rejects'], 2)}% of good parts rejected"
    if not independent:
        seen += "; several test images show the same part, so the 95 % interval is not known"
    elif summary["expected_rejects"] is not None:
        low, high = summary["expected_rejects"]
        seen += f"; chance gives {low} to {high} of {summary['good']}, 95 %"
    certified = "certified" if threshold.certified else "NOT certified"
    lines = [
        f"at threshold {threshold.reject:.4f}: {seen}",
        f"promised: {describe_promise(threshold.n_calibration, threshold.target_fpr)} "
        f"(asked for {threshold.target_fpr:.2%}, {certified})",
    ]
    if exceeds_chance(summary):
        lines.append(
            "MORE good parts are rejected than chance explains: the good test images differ from those that "
            "set the threshold"
        )
    return lines


def _review_line(reviews: dict[str, Any]) -> str:
    shares = [
        f"{percentage(reviews[kind], 2)}% of {kind} parts"
        for kind in ("good", "defective")
        if reviews[kind] is not None
    ]
    return (
        f"review band from {reviews['threshold']:.4f}: {' and '.join(shares)} go to a person "
        f"(asked for at most {reviews['review_fpr']:.2%} of good parts rejected or reviewed)"
    )


def _rate_table(points: Sequence[OperatingPoint]) -> list[list[str]]:
    rows = [["asked", "promised", "95 % confidence", "good rejected", "defective rejected"]]
    for point in points:
        rates = (point.target_fpr, point.achievable_fpr, point.fpr_at_95_confidence)
        rows.append(
            [*(f"{rate:.2%}" for rate in rates), _interval(point.false_rejects), _interval(point.recall)]
        )
    return rows


def overview_lines(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Format a line for each category, and the means."""
    table = [["category", *METRICS.values(), "recall", "false rejects"]]
    table += [
        [
            row["category"],
            *(_figure(row[key]) for key in METRICS),
            _percent(row["recall"]),
            _percent(row["false_rejects"]),
        ]
        for row in [*summaries, {"category": "mean", **means(summaries)}]
    ]
    return _indented(table)


def _indented(table: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned(table)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(share: Share | None) -> str:
    if share is None:
        return "-"
    between = "" if share.low is None else f" ({_percent(share.low)} to {_percent(share.high)})"
    return f"{_percent(share.value)}{between}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{percentage(value, 1)}%"
