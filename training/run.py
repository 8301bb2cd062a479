"""One training run from pictures to a published bundle."""

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from flows.fastflow.backbones import find_weights, save_weights
from flows.fastflow.bundle import (
    BACKBONES,
    Backbone,
    DataRecord,
    Golden,
    Manifest,
    UnknownModelError,
    activate,
    check_category,
    publish,
)
from flows.fastflow.detector import pick_device
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.scorer import Head, Scorer
from training.calibrate import Calibrated, calibrate
from training.config import RunConfig, dump_config
from training.datasets.mvtec import licence, train_images
from training.datasets.sample import DatasetError
from training.feature_cache import cached_features, file_hashes, fingerprint
from training.loop import CHECKPOINT, METRICS, EpochMetrics, fit

FINISHED = "finished.json"
_LIBRARIES = ("torch", "timm", "numpy", "opencv-python-headless", "pillow")


class Progress(Protocol):
    """How a run tells what it is doing."""

    def say(self, line: str) -> None:
        """Print a line."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar of `total` steps; what is yielded is called with the steps done since."""


@dataclass(frozen=True)
class Outcome:
    """Where a run ended.

    Attributes:
        bundle: the published directory.
        reused: True if an earlier run had already made it.
    """

    bundle: Path
    reused: bool


@dataclass(frozen=True)
class Finished:
    """What a run leaves when it is done: its identity, and the version it published."""

    identity: str
    version: str


@dataclass(frozen=True)
class Split:
    """The training pictures, divided once by seed: rows to fit and rows to calibrate with."""

    fit: NDArray[np.int64]
    calibration: NDArray[np.int64]


def split(count: int, fraction: float, seed: int) -> Split:
    """Divide `count` pictures at random; calibration gets round(fraction * count), at least one.

    Raises:
        DatasetError: there are too few to fit and to calibrate.
    """
    held_out = max(1, round(fraction * count))
    if count - held_out < 2:
        raise DatasetError(
            f"{count} good pictures are too few: at least 2 to fit and {held_out} to calibrate with"
        )
    order = np.random.default_rng(seed).permutation(count)
    return Split(fit=np.sort(order[held_out:]), calibration=np.sort(order[:held_out]))


def train(
    config: RunConfig,
    data: Path,
    category: str,
    *,
    models: Path,
    runs: Path,
    resume: bool,
    progress: Progress,
) -> Outcome:
    """Train, calibrate and publish a model of one category, and make it the active one.

    Only `train/good` is read. Pictures for calibration are held out of the fit.

    Args:
        config: the run.
        data: folder with the category in MVTec layout.
        category: name of the category, and of its sub-folder.
        models: the models folder.
        runs: folder for checkpoints and cached features.
        resume: continue a killed run, or reuse a finished one, where settings and pictures are the same.
        progress: where to tell about it.

    Raises:
        DatasetError, ImageError, WeightsError, FitError, BundleError: with the reason.
    """
    check_category(category)
    torch.set_num_threads(config.fit.threads)
    device = pick_device(config.device)
    paths = train_images(data, category)
    parts = split(len(paths), config.calibration.fraction, config.seed)
    hashes = file_hashes(paths)
    folder = runs / category
    folder.mkdir(parents=True, exist_ok=True)
    weights = find_weights(config.backbone.name, file=config.backbone.weights, folder=models / BACKBONES)
    identity = _identity(config, hashes, weights.sha256)
    finished = _finished(folder)
    if resume and finished is not None and finished.identity == identity:
        with suppress(UnknownModelError):  # its bundle was deleted: publish again
            activate(models, category, finished.version)
            progress.say(f"{category} was trained before with these settings and pictures")
            return Outcome(models / category / finished.version, reused=True)
    # An unfinished run with other settings is for `fit` to protect; a finished one has nothing to lose.
    if not resume or (finished is not None and finished.identity != identity):
        (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / FINISHED).unlink(missing_ok=True)
    (folder / "config.yaml").write_text(dump_config(config))
    progress.say(
        f"{len(paths)} good pictures of {category}: {len(parts.fit)} to fit, "
        f"{len(parts.calibration)} held out to calibrate; on {device}"
    )

    progress.say(f"backbone {weights.name}, weights from {weights.source}")
    extractor = FeatureExtractor(weights, config.backbone.out_indices).to(device)
    with progress.stage("features", len(paths)) as advance:
        features = cached_features(
            runs / "features",
            extractor,
            paths,
            hashes,
            input_size=config.input_size,
            batch_size=config.backbone.batch_size,
            advance=advance,
        )
    batches = math.ceil(len(parts.fit) / config.fit.batch_size) * config.fit.epochs
    with progress.stage("fit", batches) as advance:
        head = fit(
            config,
            features,
            parts.fit,
            parts.calibration,
            device=device,
            folder=folder,
            identity=identity,
            resume=resume,
            on_batch=advance,
            on_epoch=lambda row: progress.say(_line(row, config.fit.epochs)),
        )
    scorer = Scorer(extractor, head, config.input_size, config.score)
    held_out = [paths[i] for i in parts.calibration]
    with progress.stage("calibrate", len(held_out)) as advance:
        calibrated = calibrate(scorer, held_out, config.calibration.target_fpr, advance)

    save_weights(weights, models / BACKBONES)
    record = DataRecord(
        fingerprint=fingerprint(hashes),
        licence=licence(data, category),
        n_fit=len(parts.fit),
        n_calibration=len(parts.calibration),
    )
    bundle = _publish(config, category, models, extractor, head, calibrated, held_out, record, folder)
    activate(models, category, bundle.name)
    (folder / FINISHED).write_text(json.dumps(asdict(Finished(identity, bundle.name))))
    return Outcome(bundle, reused=False)


def _identity(config: RunConfig, hashes: Sequence[str], weights_sha256: str) -> str:
    """What two runs must share for one to continue the other: settings, pictures, weights, torch."""
    # The backbone's weights count by what they hold, not by where they lie.
    settings = config.model_dump(mode="json", exclude={"backbone": {"weights"}})
    text = json.dumps([settings, hashes, weights_sha256, torch.__version__])
    return hashlib.sha256(text.encode()).hexdigest()


def _finished(folder: Path) -> Finished | None:
    try:
        return Finished(**json.loads((folder / FINISHED).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # none, or a half-written one


def _publish(
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
        libraries={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        golden=[Golden(file=f, score=calibrated.scores[k]) for f, k in golden.items()],
        files={},
    )
    files = {file: held_out[k].read_bytes() for file, k in golden.items()}
    files["report/metrics.jsonl"] = (folder / METRICS).read_bytes()
    files["report/config.yaml"] = (folder / "config.yaml").read_bytes()
    return publish(models, manifest, tensors, files)


def _line(row: EpochMetrics, epochs: int) -> str:
    fitted = " ".join(f"{v:.3f}" for v in row.fit_nll)
    held_out = " ".join(f"{v:.3f}" for v in row.held_out_nll)
    return (
        f"epoch {row.epoch:>3}/{epochs}  nats/dim: fit {fitted}, held out {held_out}  ({row.seconds:.1f} s)"
    )
