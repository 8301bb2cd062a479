"""Evaluation of a published version: from test images to scores.csv, summary.json and report.html."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.bundle.models_folder import calibrations_folder, resolve
from flows.fastflow.calibration.conformal import ConformalThreshold
from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import replace_file
from flows.fastflow.files.listing import join_first
from flows.fastflow.files.plain_files import escape_name
from flows.fastflow.manifest import Precision
from training.data.check.unused_images import unused_test_images
from training.data.layout import test_samples, unused_masks
from training.data.sample import Sample
from training.evaluation.comparison.compare import PeerSettings, compare, plan_comparison
from training.evaluation.near_copies import NearCopies, near_copies
from training.evaluation.report.run_report import write_report
from training.evaluation.scoring import Evaluation, ScoredSample, require_usable, score_test_set
from training.evaluation.summary import TestSetRecord, metric_values, summarise
from training.evaluation.test_set import (
    TestSet,
    choose_test_set,
    count_learned_parts,
    fingerprint,
    show_different_parts,
)
from training.fit.epoch_metrics import read_metrics
from training.terminal.progress import Progress

SUMMARY, SCORES = "summary.json", "scores.csv"
_MAX_FOLDERS = 10  # listed in a message


@dataclass(frozen=True)
class EvaluatedVersion:
    bundle: Path
    folder: Path
    evaluation: Evaluation
    threshold: ConformalThreshold
    summary: dict[str, Any]
    report: Path


def evaluate_version(
    data: Path,
    category: str,
    *,
    version: str | None,
    models: Path,
    out: Path,
    device: str,
    precision: Precision,
    peers: PeerSettings | None,
    progress: Progress,
) -> EvaluatedVersion:
    """Evaluate a version and write scores.csv, summary.json and report.html to OUT/CATEGORY/VERSION.

    Args:
        version: the model's version; None for the active one.
        device: see `flows.fastflow.engines.device.pick_device`.
        precision: the engine's; its own calibration in the bundle decides.
        peers: other models to fit and measure on the same images, or None.

    Raises:
        BundleError, WeightsError, DatasetError, PartsError, FileError, ImageError, ComparisonError: with the
            reason.
    """
    bundle = resolve(models, category, version)
    listed = test_samples(data, category)
    _require_calibrated(bundle, precision)
    detector = Detector.load(bundle, device=device, precision=precision)
    tests = choose_test_set(data, category, listed, bundle, detector.manifest)
    independent = show_different_parts(tests.samples, data / category)
    _report_later_calibrations(calibrations_folder(bundle), precision, progress)
    passed_over = _report_unused_files(data, category, listed, progress)
    comparison = None if peers is None else plan_comparison(detector, bundle, data, category, peers)
    folder = out / category / bundle.name
    folder.mkdir(parents=True, exist_ok=True)
    near = _find_near_copies(tests, data / category, detector.manifest.sample_bits, progress)
    with progress.stage("evaluate", len(tests.samples)) as advance:
        evaluation = score_test_set(detector, tests.samples, advance, independent=independent)
    record = _record_test_set(data, category, tests, near, passed_over)
    threshold = detector.calibrator.threshold
    summary = summarise(category, bundle.name, detector.engine, threshold, evaluation, record)
    _write_scores(folder / SCORES, evaluation.rows)
    report = _write_summary(folder, bundle, detector, evaluation, summary)
    if comparison is not None:  # the version's own results are kept even if the comparison fails
        ours = _comparison_row(bundle, detector, evaluation)
        progress.say(f"its own results are in {report}; now the other models are fitted")
        summary["comparison"] = [ours, *compare(comparison, detector, tests.samples, progress)]
        report = _write_summary(folder, bundle, detector, evaluation, summary)
    return EvaluatedVersion(bundle, folder, evaluation, threshold, summary, report)


def _record_test_set(
    data: Path, category: str, tests: TestSet, near: NearCopies, passed_over: int
) -> TestSetRecord:
    masks = [list(chain(*sample.masks.values())) for sample in tests.samples]
    return TestSetRecord(
        data=str(data / category),
        test_fingerprint=fingerprint(tests),
        same_parts=count_learned_parts(tests.samples, data, category),
        seen=tests.seen,
        copies=tests.copies,
        near_copies=near.pairs,
        compared_with=near.compared_with,
        passed_over=passed_over,
        mask_folders=sum(any(mask.is_dir() for mask in of_sample) for of_sample in masks),
    )


def _report_unused_files(data: Path, category: str, samples: Sequence[Sample], progress: Progress) -> int:
    """Print images and masks in the test folders that are not used; return the number of images."""
    if (text := unused_masks(data, category, samples)) is not None:
        progress.say(text)
    unused = unused_test_images(data, category, samples, without_masks=text is not None)
    if unused:
        folders = [images.describe(escape_name(str(images.folder))) for images in unused]
        progress.say(f"not used in the test folders: {join_first(folders, _MAX_FOLDERS, '; ')}")
    return sum(images.count for images in unused)


def _find_near_copies(tests: TestSet, folder: Path, sample_bits: int, progress: Progress) -> NearCopies:
    """Read every test image and mask once, and search the test images for training images."""
    threads = torch.get_num_threads()
    with progress.stage("data", len(tests.samples) + len(tests.learned)) as advance:
        thumbnails = require_usable(tests.samples, threads, advance, sample_bits)
        return near_copies(
            [sample.path for sample in tests.samples],
            thumbnails,
            tests.learned,
            folder,
            threads=threads,
            advance=advance,
            sample_bits=sample_bits,
        )


def _report_later_calibrations(folder: Path, precision: Precision, progress: Progress) -> None:
    """Print if servers use a later calibration than the version's own, which is evaluated here."""
    line = (folder / f"{precision}.json").exists()
    stations = len(list(folder.glob(f"{precision}.*.json")))
    if line or stations:
        where = "" if line else f" of {stations} stations" if stations > 1 else " of a station"
        progress.say(
            f"a server decides by a calibration{where} that was made since; here the version's own does"
        )


def _require_calibrated(bundle: Path, precision: Precision) -> None:
    # Not the advice of the server and of `predict`: a recalibration does not help an evaluation.
    if read_manifest(bundle).calibration_of(precision) is None:
        raise BundleError(
            f"{bundle.parent.name}/{bundle.name} was not calibrated for {precision} engines, and an "
            f"evaluation takes no calibration that was made since; add {precision} to calibration.engines in "
            "the run's YAML and run `flowgauge train --resume`, which fits nothing anew, or use float32"
        )


def _write_summary(
    folder: Path, bundle: Path, detector: Detector, evaluation: Evaluation, summary: dict[str, Any]
) -> Path:
    """Write summary.json and the report; return the report's path."""
    replace_file(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode(), sync=False)
    return write_report(folder, bundle, detector, evaluation, summary)


def _write_scores(path: Path, rows: Sequence[ScoredSample]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "defect", "score", "p_value", "decision"])
    for row in rows:
        kinds = "/".join(kind or "" for kind in row.sample.masks)  # no folder name contains a slash
        writer.writerow([row.path, kinds, repr(row.score), repr(row.p_value), row.decision])
    replace_file(path, file.getvalue().encode(), sync=False)


def _comparison_row(bundle: Path, detector: Detector, evaluation: Evaluation) -> dict[str, Any]:
    """Build the version's own row of a comparison, with the keys of `compare`."""
    on_cpu = detector.device.type == "cpu"
    return {
        "model": "FlowGauge",
        **metric_values(evaluation.figures),
        "recall": evaluation.recall,
        "false_rejects": evaluation.false_rejects,
        "fit_seconds": sum(float(row["seconds"]) for row in read_metrics(bundle / "report")),
        "milliseconds": evaluation.milliseconds if on_cpu else None,  # the others run on the CPU
        "engine": detector.engine,
    }
