"""From a fitted and calibrated head to a bundle in the models folder."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.torch import save

from flows.fastflow.bundle import publish
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.manifest import Backbone, DataRecord, Golden, Manifest
from flows.fastflow.scorer import Head
from training.calibrate import Calibrated
from training.config import RunConfig
from training.loop import METRICS
from training.versions import library_versions

CONFIG = "config.yaml"


def publish_model(
    config: RunConfig,
    category: str,
    models: Path,
    extractor: FeatureExtractor,
    head: Head,
    calibrated: Calibrated,
    held_out: Sequence[Path],
    record: DataRecord,
    folder: Path,
) -> Path:
    """Write the bundle of a run.

    Args:
        config: the run.
        category: name of the category.
        models: the models folder.
        extractor: the backbone that was used.
        head: the fitted head.
        calibrated: what calibration found.
        held_out: the pictures it was found on, in the order of its scores.
        record: what is recorded of the data.
        folder: the run's folder, with its settings and metrics.

    Returns:
        The bundle's directory. It is not active yet.
    """
    # Contiguous again: the weights were laid out channels-last to compute, safetensors knows no strides.
    tensors = {key: value.cpu().contiguous() for key, value in head.state_dict().items()}
    now = datetime.now(UTC)
    weights_id = hashlib.sha256(save(tensors)).hexdigest()[:6]
    # The lowest, the middle and the highest score: three pictures that show a drift at either end.
    ranked = np.argsort(calibrated.scores)
    chosen = sorted({int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])})
    golden = {f"golden/{i}{held_out[k].suffix.lower()}": k for i, k in enumerate(chosen)}
    last = json.loads((folder / METRICS).read_text().splitlines()[-1])
    manifest = Manifest(
        category=category,
        version=f"{now:%Y%m%dT%H%M%S}-{weights_id}",
        created=now,
        backbone=Backbone(
            name=extractor.name,
            weights_sha256=extractor.weights_sha256,
            out_indices=list(extractor.out_indices),
            channels=list(extractor.channels),
            strides=list(extractor.strides),
            mean=list(extractor.mean),
            std=list(extractor.std),
        ),
        input_size=config.input_size,
        normalisation=config.normalisation,
        flow=config.flow,
        score=config.score,
        calibration=calibrated.calibration,
        thresholds={"float32": calibrated.threshold},
        metrics={
            "fit_nll": float(np.mean(last["fit_nll"])),
            "held_out_nll": float(np.mean(last["held_out_nll"])),
        },
        data=record,
        libraries=library_versions(),
        golden=[Golden(file=f, score=calibrated.scores[k]) for f, k in golden.items()],
        files={},
    )
    files = {file: held_out[k].read_bytes() for file, k in golden.items()}
    files["report/metrics.jsonl"] = (folder / METRICS).read_bytes()
    files["report/config.yaml"] = (folder / CONFIG).read_bytes()
    return publish(models, manifest, tensors, files)
