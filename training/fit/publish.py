"""Publication of a run: the bundle is written, loaded once, and made active."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from flows.fastflow.backbones.recorded import record_backbone
from flows.fastflow.backbones.weights import save_weights
from flows.fastflow.bundle.image_digests import CALIBRATION_IMAGES, FIT_IMAGES, format_digests
from flows.fastflow.bundle.models_folder import BACKBONES, activate, describe_lost_calibrations
from flows.fastflow.bundle.publication import publish
from flows.fastflow.bundle.version_names import name_version
from flows.fastflow.calibration.highest_scores import highest_scoring
from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import remove_abandoned
from flows.fastflow.imaging.heatmap import ColourScale, render_overlay
from flows.fastflow.inference.golden import score_golden
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.learning.descriptions import DESCRIPTIONS, Descriptions
from flows.fastflow.manifest import Gaussian, Manifest, Precision
from training.data.pinned_images import read, read_bytes
from training.data.thumbnails import encode_webp, shrink
from training.fit.calibrate import EngineCalibration
from training.fit.epoch_metrics import METRICS, final_metrics
from training.fit.preparation import Run
from training.fit.run_folder import CONFIG, DATA_CHECK, begin_publication, finish
from training.versions import library_versions

GEOMETRY_REASON = "report/geometry.txt"  # why `geometry.fit: auto` chose the input size, if it did
# Of the calibration images with the highest scores, in float32: their names, and a picture of each.
HIGHEST = "report/highest.json"
HIGHEST_IMAGE = "report/highest_{}.webp"

Scorers = Mapping[Precision, Scorer]
Calibrations = Mapping[Precision, EngineCalibration]


def publish_version(
    run: Run,
    scorers: Scorers,
    calibrations: Calibrations,
    descriptions: Descriptions | None,
    *,
    make_active: bool,
) -> Path:
    """Write the bundle of a run and, if told to, make it the active version.

    Args:
        run: the run; its folder holds settings, metrics and data check.
        descriptions: descriptions of the run's images; None for a starter, which cannot learn from reviews.

    Raises:
        DatasetError: an image's file is gone or was changed since; it is named.
        BundleError: the bundle cannot be loaded.
    """
    remove_abandoned(run.models / BACKBONES)
    save_weights(run.weights, run.models / BACKBONES)
    bundle = _write_bundle(run, scorers, calibrations, descriptions)
    # Loaded as a server loads it: a bundle that fails here must not become active.
    Detector.load(bundle, device=str(run.device), backbone=scorers["float32"].extractor)
    if make_active:
        before = activate(run.models, run.category, bundle.name)
        for line in describe_lost_calibrations(run.models, run.category, before, bundle.name):
            run.progress.say(line)
    finish(run.folder, run.identity, bundle.name)
    return bundle


def _write_bundle(
    run: Run, scorers: Scorers, calibrations: Calibrations, descriptions: Descriptions | None
) -> Path:
    head = scorers["float32"].head
    # Contiguous again: the weights were laid out channels-last, and safetensors knows no strides.
    tensors = {key: value.cpu().contiguous() for key, value in head.state_dict().items()}
    golden = _golden_files(run, calibrations["float32"].scores)
    manifest = _manifest(run, scorers, calibrations, tensors, golden)
    files = golden | _report_files(run) | _highest_files(run, scorers["float32"], calibrations["float32"])
    if descriptions is not None:
        files[DESCRIPTIONS] = descriptions.to_bytes()
    begin_publication(run.folder, run.identity, run.models, run.category, manifest.version)
    return publish(run.models, manifest, tensors, files)


def _manifest(
    run: Run,
    scorers: Scorers,
    calibrations: Calibrations,
    tensors: Mapping[str, Tensor],
    golden: Mapping[str, bytes],
) -> Manifest:
    config, reference = run.config, scorers["float32"]
    created, version = name_version(run.models / run.category, tensors)
    head = reference.head
    return Manifest(
        category=run.category,
        version=version,
        created=created,
        backbone=record_backbone(reference.extractor),
        input_size=run.input_size,
        sample_bits=config.sample_bits,
        geometry=run.geometry,
        normalisation=config.normalisation,
        gaussian=Gaussian(sizes=head.gaussian.sizes, cells=head.cells.side if head.cells else None),
        flow=config.flow,
        score=reference.rule,
        calibration=calibrations["float32"].calibration,
        reduced={name: made.calibration for name, made in calibrations.items() if name != "float32"},
        thresholds={name: made.threshold for name, made in calibrations.items()},
        review_fpr=config.calibration.review_fpr,
        metrics={} if config.starter else final_metrics(run.folder),
        data=run.images.record,
        libraries=library_versions(),
        golden=[score_golden(file, data, scorers, config.sample_bits) for file, data in golden.items()],
        files={},
    )


def _golden_files(run: Run, scores: list[float]) -> dict[str, bytes]:
    """Read the images with the lowest, the median and the highest score: they show a drift at either end."""
    held_out = run.images.pinned_held_out
    ranked = np.argsort(scores)
    chosen = sorted({int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])})
    return {
        f"golden/{i}{held_out[k].path.suffix.lower()}": read_bytes(held_out[k]) for i, k in enumerate(chosen)
    }


def _report_files(run: Run) -> dict[str, bytes]:
    images = run.images
    files = {} if run.config.starter else {"report/metrics.jsonl": (run.folder / METRICS).read_bytes()}
    for name, rows in ((FIT_IMAGES, images.split.seen), (CALIBRATION_IMAGES, images.not_fitted)):
        files[name] = format_digests([images.hashes[i] for i in rows])
    files["report/config.yaml"] = (run.folder / CONFIG).read_bytes()
    files[f"report/{DATA_CHECK}"] = (run.folder / DATA_CHECK).read_bytes()
    if run.geometry_reason is not None:
        files[GEOMETRY_REASON] = run.geometry_reason.encode()
    return files


def _highest_files(run: Run, scorer: Scorer, made: EngineCalibration) -> dict[str, bytes]:
    """Draw the calibration images with the highest scores, each beside its heatmap."""
    chosen = [run.images.pinned_held_out[i] for i in highest_scoring(made.scores)]
    files = {HIGHEST: json.dumps([image.path.name for image in chosen]).encode()}
    scale = ColourScale(low=made.calibration.map_typical, middle=made.calibration.map_threshold)
    for i, image in enumerate(chosen):
        pixels = read(image, run.config.sample_bits)
        [scored] = scorer.score([pixels])
        small = shrink(pixels)
        pair = np.hstack([small, render_overlay(small, scored.score_map, scale)])
        files[HIGHEST_IMAGE.format(i)] = encode_webp(pair)
    return files
