"""The report of one evaluated version: a self-contained HTML file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.fastflow.bundle.bundle import read_verified
from flows.fastflow.calibration.conformal import describe_promise
from flows.fastflow.calibration.highest_scores import describe_highest_scoring, describe_recommended_rate
from flows.fastflow.calibration.review_band import describe_empty_band
from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import replace_file
from flows.fastflow.manifest import Manifest
from training.data.licence import forbids_commercial_use
from training.evaluation.near_copies import describe_near_copies
from training.evaluation.report import charts
from training.evaluation.report.chart import XYChart
from training.evaluation.report.mistakes import data_uri, worst_mistakes
from training.evaluation.report.pages import render
from training.evaluation.scoring import Evaluation
from training.evaluation.summary import (
    METRICS,
    describe_learned,
    describe_mask_folders,
    describe_passed_over,
    describe_times,
    exceeds_chance,
)
from training.fit.epoch_metrics import row_of_final_weights
from training.fit.publish import GEOMETRY_REASON, HIGHEST, HIGHEST_IMAGE

REPORT = "report.html"
_EPOCHS, _DATA_CHECK = "report/metrics.jsonl", "report/data_check.json"
_FINDING_KEYS = ("severity", "kind", "message")
_MAX_BYTES = 16 * 2**20  # of a bundle file shown in the report


def write_report(
    folder: Path, bundle: Path, detector: Detector, evaluation: Evaluation, summary: dict[str, Any]
) -> Path:
    """Write report.html into the folder.

    Args:
        folder: the evaluation's folder, OUT/CATEGORY/VERSION.

    Raises:
        ImageError: a test image is gone since it was scored.
        BundleError: a file in the bundle is damaged.
    """
    manifest, threshold = detector.manifest, detector.calibrator.threshold
    epochs = [json.loads(line) for line in _text(bundle, manifest, _EPOCHS).splitlines()]
    false_rejects, escapes = worst_mistakes(detector, evaluation)
    comparison = summary.get("comparison", [])
    page = render(
        "run.html.j2",
        summary=summary,
        manifest=manifest,
        threshold=threshold,
        promise=describe_promise(threshold.n_calibration, threshold.target_fpr),
        metrics=METRICS,
        pixel_count=evaluation.figures.masked,
        band=summary["expected_rejects"],
        exceeds_chance=exceeds_chance(summary),
        empty_band=describe_empty_band(
            threshold.n_calibration, threshold.target_fpr, detector.calibrator.review_fpr
        ),
        near_copies=describe_near_copies(summary["near_copies"], summary["compared_with"]),
        learned=describe_learned(summary),
        passed_over=describe_passed_over(summary),
        mask_folders=describe_mask_folders(summary),
        independent=evaluation.independent,
        geometry_reason=_text(bundle, manifest, GEOMETRY_REASON),
        highest=_highest(bundle, manifest),
        recommended=describe_recommended_rate(detector.calibrator.scores.tolist(), threshold.target_fpr),
        charts=_draw_charts(detector, evaluation, epochs),
        false_rejects=false_rejects,
        escapes=escapes,
        epochs=epochs,
        chosen=_chosen(epochs),
        data_check=_findings(_text(bundle, manifest, _DATA_CHECK)),
        non_commercial=forbids_commercial_use(manifest.data.licence or ""),
        comparison=comparison,
        times=describe_times(comparison),
        best={key: max((r[key] for r in comparison if r[key] is not None), default=None) for key in METRICS},
    )
    path = folder / REPORT
    replace_file(path, page.encode(), sync=False)
    return path


def _draw_charts(
    detector: Detector, evaluation: Evaluation, epochs: Sequence[Mapping[str, Any]]
) -> dict[str, XYChart]:
    threshold = detector.calibrator.threshold
    drawn = {
        "scores": charts.histogram_chart(evaluation, threshold),
        "roc": charts.roc_chart(evaluation),
        "pro": charts.pro_chart(evaluation),
        "calibration": charts.calibration_chart(evaluation, threshold),
        "distribution": charts.distribution_chart(evaluation, detector.calibrator.scores, threshold),
        "loss": charts.loss_chart(epochs),
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def _chosen(epochs: Sequence[Mapping[str, Any]]) -> int | None:
    """Find the epoch that `fit.stopping` chose; None without early stopping."""
    if not epochs or not epochs[-1]["validation_nll"]:
        return None
    return int(row_of_final_weights(epochs)["epoch"])


def _highest(bundle: Path, manifest: Manifest) -> Mapping[str, Any] | None:
    """Collect the good images that set the float32 threshold; None if the bundle does not name them."""
    text = _text(bundle, manifest, HIGHEST)
    if not text:
        return None
    names, scores = json.loads(text), manifest.calibration.scores
    files = [HIGHEST_IMAGE.format(i) for i in range(len(names))]
    return {
        "text": describe_highest_scoring(names, scores),
        "images": [
            {"name": name, "score": score, "uri": data_uri(_bytes(bundle, manifest, file))}
            for name, score, file in zip(names, reversed(scores), files, strict=False)
            if file in manifest.files
        ],
    }


def _bytes(bundle: Path, manifest: Manifest, name: str) -> bytes:
    """Read a file of the bundle; empty if it has no such file."""
    return read_verified(bundle, manifest, name, _MAX_BYTES) if name in manifest.files else b""


def _text(bundle: Path, manifest: Manifest, name: str) -> str:
    """Read a text file of the bundle; empty if it has no such file."""
    return _bytes(bundle, manifest, name).decode("utf-8", errors="replace")


def _findings(text: str) -> list[dict[str, str]] | None:
    """Parse the recorded findings of the data check; None if no check was recorded."""
    if not text:
        return None
    return [
        {
            key: str(finding[key]).replace("_", " ") if key == "kind" else str(finding[key])
            for key in _FINDING_KEYS
        }
        for finding in json.loads(text)["findings"]
    ]
