"""From a published version and test pictures to the files of an evaluation."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from flows.fastflow import fit_pictures
from flows.fastflow.bundle import BundleError, read_manifest
from flows.fastflow.conformal import Threshold
from flows.fastflow.detector import Detector
from flows.fastflow.fit_pictures import CALIBRATION_PICTURES, FIT_PICTURES, FitPictures
from flows.fastflow.listing import some
from flows.fastflow.manifest import Manifest, Precision
from flows.fastflow.models_folder import active_version, is_category, renewals_of, resolve
from flows.fastflow.parts import PartsError, parts_of_names, parts_where_told
from flows.fastflow.plain_files import escaped, file_hashes, replace_file
from training.comparison.comparison import Peers, compare, planned
from training.datasets.check.copies import same_parts
from training.datasets.check.passed_over import idle_in_test
from training.datasets.layout import categories, test_samples, train_images, unused_masks
from training.datasets.masks import files_of
from training.datasets.sample import DatasetError, Sample
from training.evaluation import Evaluation, Row, evaluate, expect_usable
from training.loop import read_metrics
from training.near_copies import few_enough, near_copies, of_version
from training.progress import Progress
from training.report import write_report
from training.summary import TestedOn, metrics, summarise

SUMMARY, SCORES = "summary.json", "scores.csv"
_SHOWN = 10  # folders of pictures that are passed over


@dataclass(frozen=True)
class Assessed:
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
    threshold: Threshold
    summary: dict[str, Any]
    report: Path


def with_models(data: Path, models: Path) -> list[str]:
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


def assess(
    data: Path,
    category: str,
    version: str | None,
    *,
    models: Path,
    out: Path,
    device: str,
    precision: Precision,
    peers: Peers | None,
    progress: Progress,
) -> Assessed:
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
    _expect_calibrated(bundle, precision)
    detector = Detector.load(bundle, device=device, precision=precision)
    hashes = hashes_of(found)
    known = known_pictures(bundle, detector.manifest)
    fresh = unseen(found, hashes, bundle, known)
    samples = each_once(fresh, hashes)
    independent = _show_different_parts(samples, data / category)
    _say_renewals(renewals_of(bundle), precision, progress)
    if (said := unused_masks(data, category, found)) is not None:
        progress.say(said)
    idle = idle_in_test(data, category, found, without_masks=said is not None)
    if idle:
        folders = [one.said(escaped(str(one.place))) for one in idle]
        progress.say(f"passed over in the test's folders: {some(folders, _SHOWN, '; ')}")
    comparison = None if peers is None else planned(detector, bundle, data, category, peers)
    folder = out / category / bundle.name
    folder.mkdir(parents=True, exist_ok=True)
    learned = of_version(_learned(data, category, found, fresh, known), known)
    learned = few_enough(learned, len(samples))
    threads, sample_bits = torch.get_num_threads(), detector.manifest.sample_bits
    with progress.stage("look", len(samples) + len(learned)) as advance:
        thumbnails = expect_usable(samples, threads, advance, sample_bits)
        near = near_copies(
            [sample.path for sample in samples],
            thumbnails,
            learned,
            data / category,
            threads=threads,
            advance=advance,
            sample_bits=sample_bits,
        )
    with progress.stage("evaluate", len(samples)) as advance:
        evaluation = evaluate(detector, samples, advance, independent=independent)
    threshold = detector.calibrator.threshold
    tested_on = TestedOn(
        data=str(data / category),
        test_fingerprint=_fingerprint(samples, hashes),
        same_parts=_of_learned_parts(samples, data, category),
        seen=len(found) - len(fresh),
        copies=len(fresh) - len(samples),
        near_copies=near.found,
        compared_with=near.compared_with,
        passed_over=sum(one.count for one in idle),
        mask_folders=sum(any(mask.is_dir() for mask in chain(*s.masks.values())) for s in samples),
    )
    summary = summarise(category, bundle.name, detector.engine, threshold, evaluation, tested_on)
    if _replaces_others(folder / SUMMARY, tested_on):
        progress.say("the evaluation that this one replaces was on other test pictures, labels or masks")
    _write_scores(folder / SCORES, evaluation.rows)
    report = _write_figures(folder, bundle, detector, evaluation, summary)
    if comparison is not None:  # what was measured is kept, whatever becomes of it
        ours = _beside_others(bundle, detector, evaluation)
        progress.say(f"its own figures are in {report}; now the others are fitted")
        summary["comparison"] = [ours, *compare(comparison, detector, samples, progress)]
        report = _write_figures(folder, bundle, detector, evaluation, summary)
    return Assessed(bundle, folder, evaluation, threshold, summary, report)


def _say_renewals(folder: Path, precision: Precision, progress: Progress) -> None:
    """Say where a server decides otherwise than by the version's own calibration, which is measured here."""
    line = (folder / f"{precision}.json").exists()
    stations = len(list(folder.glob(f"{precision}.*.json")))
    if line or stations:
        where = "" if line else f" of {stations} stations" if stations > 1 else " of a station"
        progress.say(
            f"a server decides by a calibration{where} that was made since; here the version's own does"
        )


def _expect_calibrated(bundle: Path, precision: Precision) -> None:
    # What a server or `predict` would be told, to calibrate anew, helps nothing here.
    if read_manifest(bundle).calibration_of(precision) is None:
        raise BundleError(
            f"{bundle.parent.name}/{bundle.name} was not calibrated for {precision} engines, and an "
            f"evaluation takes no calibration that was made since; add {precision} to calibration.engines in "
            "the run's YAML and run `flowgauge train --resume`, which fits nothing anew, or use float32"
        )


def known_pictures(bundle: Path, manifest: Manifest) -> list[FitPictures]:
    """What a version was fitted to, and what it was calibrated with; fewer of one that does not say so.

    Raises:
        BundleError: a list of the bundle was changed.
    """
    lists = [fit_pictures.load(bundle, manifest, name) for name in (FIT_PICTURES, CALIBRATION_PICTURES)]
    return [pictures for pictures in lists if pictures is not None]


def _learned(
    data: Path, category: str, found: Sequence[Sample], fresh: Sequence[Sample], known: Sequence[FitPictures]
) -> list[Path]:
    """Where the pictures of the version may be: to train with today, or among the test pictures."""
    if not known:
        return []
    left = {sample.path for sample in fresh}
    seen = [sample.path for sample in found if sample.path not in left]
    try:
        return [*train_images(data, category), *seen]
    except DatasetError:  # a test set may come alone
        return seen


def unseen(
    samples: Sequence[Sample], hashes: Mapping[Path, str], bundle: Path, known: Sequence[FitPictures]
) -> list[Sample]:
    """Leave out test pictures that a version was fitted to or calibrated with: figures of them flatter.

    In a plain folder all good pictures are there to train with, until some are set aside.

    Args:
        samples: the test pictures.
        hashes: the sha256 of each of them.
        bundle: the version.
        known: its pictures, from `known_pictures`.

    Raises:
        DatasetError: none is left.
    """
    left = [sample for sample in samples if not any(hashes[sample.path] in pictures for pictures in known)]
    if not left:
        raise DatasetError(
            f"{bundle.parent.name}/{bundle.name} was fitted to or calibrated with every one of the "
            f"{len(samples)} test pictures, so they can tell nothing; set others aside and train without them"
        )
    return left


def hashes_of(samples: Sequence[Sample]) -> dict[Path, str]:
    """The sha256 of each test picture's file, hexadecimal."""
    paths = [sample.path for sample in samples]
    return dict(zip(paths, file_hashes(paths), strict=True))


def each_once(samples: Sequence[Sample], hashes: Mapping[Path, str]) -> list[Sample]:
    """Make one of copies, byte for byte, of good test pictures, and of defective ones: one picture is one.

    It is of all kinds of defects that its copies are of, and all their masks mark it. A good one that is the
    same as a defective one is kept, and so is the other: the data check names them.
    """
    same: dict[tuple[str, bool], list[Sample]] = {}
    for sample in samples:
        same.setdefault((hashes[sample.path], sample.defect is not None), []).append(sample)
    return [replace(first, copies=tuple(copies)) for first, *copies in same.values()]


def _show_different_parts(samples: Sequence[Sample], folder: Path) -> bool:
    """Whether no two good pictures, and no two defective ones, show the same part, as far as names tell.

    Raises:
        PartsError: there is a parts.txt that cannot be used.
    """
    for defective in (False, True):
        names = [sample.path.name for sample in samples if (sample.defect is not None) == defective]
        parts = parts_where_told(names, folder)
        if parts is not None and len(set(parts)) < len(parts):
            return False
    return True


def _of_learned_parts(samples: Sequence[Sample], data: Path, category: str) -> int:
    """How many good test pictures show parts of which there are training pictures, as names tell.

    They are not left out: where counters begin anew in each folder, it is the names that are the same.
    """
    try:
        learned = train_images(data, category)
        parts = parts_of_names([path.name for path in learned], data / category)
    except (DatasetError, PartsError):  # a test set may come alone
        return 0
    good = [sample.path for sample in samples if sample.defect is None]
    return 0 if parts is None else len(same_parts(learned, parts, good, data / category))


def _fingerprint(samples: Sequence[Sample], hashes: Mapping[Path, str]) -> str:
    """Digest of the test pictures' contents with their labels and masks, whatever their order and names."""
    marked = [
        (sample, kind, [file for mask in masks for file in files_of(mask)])
        for sample in samples
        for kind, masks in sample.masks.items()
    ]
    files = [file for _, _, of_one in marked for file in of_one]
    digests = dict(zip(files, file_hashes(files), strict=True))
    rows = []
    for sample, kind, of_one in marked:
        found = [digests[file] for file in of_one]
        # Which copy comes first is a matter of names.
        rows.append([hashes[sample.path], kind or "", *(sorted({*found}) if sample.copies else found)])
    rows.sort()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _replaces_others(path: Path, tested_on: TestedOn) -> bool:
    """Whether an evaluation lies there that was made on something else, as far as it says so."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["test_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(before != tested_on.test_fingerprint)


def _write_figures(
    folder: Path, bundle: Path, detector: Detector, evaluation: Evaluation, summary: dict[str, Any]
) -> Path:
    """The summary and the report, whose path is returned."""
    replace_file(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    return write_report(folder, bundle, detector, evaluation, summary)


def _write_scores(path: Path, rows: Sequence[Row]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "defect", "score", "p_value", "decision"])
    for row in rows:
        kinds = "/".join(kind or "" for kind in row.sample.masks)  # no folder's name holds a slash
        writer.writerow([row.path, kinds, repr(row.score), repr(row.p_value), row.decision])
    replace_file(path, file.getvalue().encode())


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
