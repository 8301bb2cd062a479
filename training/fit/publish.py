"""From a fitted and calibrated head to a bundle in the models folder."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from safetensors.torch import save

from flows.fastflow.backbones.recorded import record_backbone
from flows.fastflow.bundle.image_digests import CALIBRATION_IMAGES, FIT_IMAGES, format_digests
from flows.fastflow.bundle.models_folder import publish
from flows.fastflow.calibration.highest_scores import highest_scoring
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.manifest import Gaussian, Golden, Manifest, Precision
from training.config.run_config import RunConfig
from training.data.pinned_images import read_bytes
from training.data.training_images import TrainingImages
from training.fit.calibrate import EngineCalibration
from training.fit.training_loop import METRICS, final_metrics
from training.versions import library_versions

CONFIG = "config.yaml"
DATA_CHECK = "data_check.json"
HIGHEST = "report/highest.json"  # names of the calibration images with the highest scores, in float32


def publish_model(
    config: RunConfig,
    category: str,
    models: Path,
    engines: Mapping[Precision, Scorer],
    calibrated: Mapping[Precision, EngineCalibration],
    images: TrainingImages,
    folder: Path,
) -> Path:
    """Write the bundle of a run.

    Args:
        config: the run.
        category: name of the category.
        models: the models folder.
        engines: the fitted model as it may be served.
        calibrated: what calibration found, for each of them.
        images: that it was learned from.
        folder: the run's folder, with its settings, metrics and data check.

    Returns:
        The bundle's directory. It is not active yet.

    Raises:
        DatasetError: an image's file is gone or was changed since; it is named.
    """
    # Contiguous again: the weights were laid out channels-last to compute, safetensors knows no strides.
    reference, found = engines["float32"], calibrated["float32"]
    held_out = images.pinned_held_out
    tensors = {key: value.cpu().contiguous() for key, value in reference.head.state_dict().items()}
    now = datetime.now(UTC)
    weights_id = hashlib.sha256(save(tensors)).hexdigest()[:6]
    # The same weights may be published twice in a second, with other rates.
    while (models / category / _version(now, weights_id)).exists():
        now += timedelta(seconds=1)
    # The lowest, the middle and the highest score: three images that show a drift at either end.
    ranked = np.argsort(found.scores)
    chosen = sorted({int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])})
    golden = {
        f"golden/{i}{held_out[k].path.suffix.lower()}": read_bytes(held_out[k]) for i, k in enumerate(chosen)
    }
    manifest = Manifest(
        category=category,
        version=_version(now, weights_id),
        created=now,
        backbone=record_backbone(reference.extractor),
        input_size=config.input_size,
        sample_bits=config.sample_bits,
        geometry=config.geometry,
        normalisation=config.normalisation,
        gaussian=Gaussian(sizes=reference.head.gaussian.sizes),
        flow=config.flow,
        score=reference.rule,
        calibration=found.calibration,
        reduced={name: one.calibration for name, one in calibrated.items() if name != "float32"},
        thresholds={name: one.threshold for name, one in calibrated.items()},
        review_fpr=config.calibration.review_fpr,
        metrics=final_metrics(folder),
        data=images.record,
        libraries=library_versions(),
        golden=[_golden(file, data, engines, config.sample_bits) for file, data in golden.items()],
        files={},
    )
    files = dict(golden)
    files["report/metrics.jsonl"] = (folder / METRICS).read_bytes()
    for name, rows in ((FIT_IMAGES, images.split.seen), (CALIBRATION_IMAGES, images.known)):
        files[name] = format_digests([images.hashes[i] for i in rows])
    files["report/config.yaml"] = (folder / CONFIG).read_bytes()
    files[f"report/{DATA_CHECK}"] = (folder / DATA_CHECK).read_bytes()
    files[HIGHEST] = json.dumps(highest_scoring([one.path.name for one in held_out], found.scores)).encode()
    return publish(models, manifest, tensors, files)


def _version(created: datetime, weights_id: str) -> str:
    return f"{created:%Y%m%dT%H%M%S}-{weights_id}"


def _golden(file: str, data: bytes, engines: Mapping[Precision, Scorer], sample_bits: int) -> Golden:
    image = decode_image(data, FILE_LIMITS, sample_bits)
    scores = {name: engine.score([image])[0].score for name, engine in engines.items()}
    return Golden(file=file, score=scores.pop("float32"), reduced=scores)
