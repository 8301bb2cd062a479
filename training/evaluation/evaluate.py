"""From a published version and test images to the files of an evaluation."""

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
from flows.fastflow.bundle.models_folder import active_version, calibrations_folder, is_category, resolve
from flows.fastflow.calibration.conformal import ConformalThreshold
from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import replace_file
from flows.fastflow.files.listing import join_first
from flows.fastflow.files.plain_files import escape_name
from flows.fastflow.manifest import Precision
from training.data.check.unused_images import unused_test_images
from training.data.layout import categories, test_samples, unused_masks
from training.data.sample import DatasetError, Sample
from training.evaluation.comparison.compare import PeerSettings, compare, plan_comparison
from training.evaluation.near_copies import NearCopies, near_copies
from training.evaluation.report.run_report import write_report
from training.evaluation.scoring import Evaluation, ScoredSample, require_usable, score_test_set
from training.evaluation.summary import TestSetRecord, metrics, summarise
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
_SHOWN = 10  # folders of images that are passed over


@dataclass(frozen=True)
class EvaluatedVersion:
    """One evaluated version.

    Attributes:
        bundle: the version.
        folder: where its files are.
        evaluation: what was found.
        threshold: the version's.
        summary: what summary.json says.
        report: the HTML file.
    """

    bundle: Path
    folder: Path
    evaluation: Evaluation
    threshold: ConformalThreshold
    summary: dict[str, Any]
    report: Path


def categories_with_models(data: Path, models: Path) -> list[str]:
    """The categories of a data folder that have a published model.

    Raises:
        DatasetError: there is none.
    """
    found = categories(data)
    published = [name for name in found if is_category(name) and active_version(models, name)]
    if not published:
        raise DatasetError(
            f"no category of {data} has a published model in {models}; "
            f"categories there: {', '.join(found) or 'none'}. Train one first: flowgauge train"
        )
    return published


def evaluate_version(
    data: Path,
    category: str,
    version: str | None,
    *,
    models: Path,
    out: Path,
    device: str,
    precision: Precision,
    peers: PeerSettings | None,
    progress: Progress,
) -> EvaluatedVersion:
    """Evaluate a version and write scores.csv, summary.json and report.html to OUT/CATEGORY/VERSION.

    Args:
        data: folder with the category.
        category: its name.
        version: of the model; None for the active one.
        models: the models folder.
        out: where evaluations go.
        device: see `flows.fastflow.detector.pick_device`.
        precision: of the engine, whose own calibration in the bundle decides.
        peers: other models to fit and measure beside it, or None.
        progress: where to tell about it.

    Raises:
        BundleError, WeightsError, DatasetError, PartsError, FileError, ImageError, ComparisonError: with the
            reason.
    """
    bundle = resolve(models, category, version)
    found = test_samples(data, category)
    _require_calibrated(bundle, precision)
    detector = Detector.load(bundle, device=device, precision=precision)
    tests = choose_test_set(data, category, found, bundle, detector.manifest)
    independent = show_different_parts(tests.samples, data / category)
    _say_renewals(calibrations_folder(bundle), precision, progress)
    passed_over = _say_passed_over(data, category, found, progress)
    comparison = None if peers is None else plan_comparison(detector, bundle, data, category, peers)
    folder = out / category / bundle.name
    folder.mkdir(parents=True, exist_ok=True)
    near = _look(tests, data / category, detector.manifest.sample_bits, progress)
    with progress.stage("evaluate", len(tests.samples)) as advance:
        evaluation = score_test_set(detector, tests.samples, advance, independent=independent)
    tested_on = TestSetRecord(
        data=str(data / category),
        test_fingerprint=fingerprint(tests),
        same_parts=count_learned_parts(tests.samples, data, category),
        seen=tests.seen,
        copies=tests.copies,
        near_copies=near.found,
        compared_with=near.compared_with,
        passed_over=passed_over,
        mask_folders=sum(any(mask.is_dir() for mask in chain(*s.masks.values())) for s in tests.samples),
    )
    threshold = detector.calibrator.threshold
    summary = summarise(category, bundle.name, detector.engine, threshold, evaluation, tested_on)
    _write_scores(folder / SCORES, evaluation.rows)
    report = _write_figures(folder, bundle, detector, evaluation, summary)
    if comparison is not None:  # what was measured is kept, whatever becomes of it
        ours = _beside_others(bundle, detector, evaluation)
        progress.say(f"its own figures are in {report}; now the others are fitted")
        summary["comparison"] = [ours, *compare(comparison, detector, tests.samples, progress)]
        report = _write_figures(folder, bundle, detector, evaluation, summary)
    return EvaluatedVersion(bundle, folder, evaluation, threshold, summary, report)


def _say_passed_over(data: Path, category: str, found: Sequence[Sample], progress: Progress) -> int:
    """Say which images and masks in the test's folders have no part in this; how many images they are."""
    if (said := unused_masks(data, category, found)) is not None:
        progress.say(said)
    idle = unused_test_images(data, category, found, without_masks=said is not None)
    if idle:
        folders = [one.said(escape_name(str(one.place))) for one in idle]
        progress.say(f"passed over in the test's folders: {join_first(folders, _SHOWN, '; ')}")
    return sum(one.count for one in idle)


def _look(tests: TestSet, folder: Path, sample_bits: int, progress: Progress) -> NearCopies:
    """Read every test image and mask once, and look for training images among them.

    Raises:
        DatasetError: some cannot be used; they are named.
    """
    threads = torch.get_num_threads()
    with progress.stage("look", len(tests.samples) + len(tests.learned)) as advance:
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


def _say_renewals(folder: Path, precision: Precision, progress: Progress) -> None:
    """Say where a server decides otherwise than by the version's own calibration, which is measured here."""
    line = (folder / f"{precision}.json").exists()
    stations = len(list(folder.glob(f"{precision}.*.json")))
    if line or stations:
        where = "" if line else f" of {stations} stations" if stations > 1 else " of a station"
        progress.say(
            f"a server decides by a calibration{where} that was made since; here the version's own does"
        )


def _require_calibrated(bundle: Path, precision: Precision) -> None:
    # What a server or `predict` would be told, to calibrate anew, helps nothing here.
    if read_manifest(bundle).calibration_of(precision) is None:
        raise BundleError(
            f"{bundle.parent.name}/{bundle.name} was not calibrated for {precision} engines, and an "
            f"evaluation takes no calibration that was made since; add {precision} to calibration.engines in "
            "the run's YAML and run `flowgauge train --resume`, which fits nothing anew, or use float32"
        )


def _write_figures(
    folder: Path, bundle: Path, detector: Detector, evaluation: Evaluation, summary: dict[str, Any]
) -> Path:
    """The summary and the report, whose path is returned."""
    replace_file(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode(), sync=False)
    return write_report(folder, bundle, detector, evaluation, summary)


def _write_scores(path: Path, rows: Sequence[ScoredSample]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "defect", "score", "p_value", "decision"])
    for row in rows:
        kinds = "/".join(kind or "" for kind in row.sample.masks)  # no folder's name holds a slash
        writer.writerow([row.path, kinds, repr(row.score), repr(row.p_value), row.decision])
    replace_file(path, file.getvalue().encode(), sync=False)


def _beside_others(bundle: Path, detector: Detector, evaluation: Evaluation) -> dict[str, Any]:
    """The version's row of a comparison, as `compare` gives those of the others."""
    on_cpu = detector.device.type == "cpu"
    return {
        "model": "FlowGauge",
        **metrics(evaluation.figures),
        "recall": evaluation.recall,
        "false_rejects": evaluation.false_rejects,
        "fit_seconds": _fit_seconds(bundle),
        "milliseconds": evaluation.milliseconds if on_cpu else None,  # the others are computed by a CPU
        "engine": detector.engine,
    }


def _fit_seconds(bundle: Path) -> float:
    return sum(float(row["seconds"]) for row in read_metrics(bundle / "report"))
