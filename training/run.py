"""One training run from pictures to a published model."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout

from flows.fastflow.backbones import find_weights, save_weights
from flows.fastflow.bundle import BACKBONES, BundleError, activate, check_category, resolve, verify
from flows.fastflow.detector import Detector, pick_device
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.manifest import DataRecord
from flows.fastflow.scorer import Scorer
from training.calibrate import calibrate
from training.config import RunConfig, dump_config
from training.datasets.mvtec import licence, train_images
from training.feature_cache import cached_features, file_hashes, fingerprint
from training.loop import CHECKPOINT, EpochMetrics, FitError, fit
from training.publication import CONFIG, publish_model
from training.split import split, without_copies
from training.versions import library_versions

FINISHED = "finished.json"


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

    Only `train/good` is read. Pictures for calibration are held out of the fit. A run lies in a folder named
    after all that decides its weights, so that runs with other settings never meet.

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
    found = train_images(data, category)
    paths, hashes = without_copies(found, file_hashes(found))
    if len(paths) < len(found):
        progress.say(f"{len(found) - len(paths)} pictures are copies of others, byte for byte: left out")
    parts = split(len(paths), config.calibration.fraction, config.seed)
    weights = find_weights(config.backbone.name, file=config.backbone.weights, folder=models / BACKBONES)
    fit_identity, identity = _identities(config, hashes, weights.sha256, device)
    folder = runs / category / fit_identity[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if resume and (bundle := _reusable(folder, identity, models, category)) is not None:
            activate(models, category, bundle.name)
            progress.say(f"{category} was trained before with these settings and pictures")
            return Outcome(bundle, reused=True)
        if not resume:
            (folder / CHECKPOINT).unlink(missing_ok=True)
        (folder / FINISHED).unlink(missing_ok=True)
        (folder / CONFIG).write_text(dump_config(config))
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
                identity=fit_identity,
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
        bundle = publish_model(
            config, category, models, extractor, head, calibrated, held_out, record, folder
        )
        # As a server will load it: a bundle that would be refused there must not become the active one.
        Detector.load(bundle, device=str(device), backbone=extractor)
        activate(models, category, bundle.name)
        (folder / FINISHED).write_text(json.dumps(asdict(Finished(identity, bundle.name))))
        return Outcome(bundle, reused=False)


def _identities(
    config: RunConfig, hashes: Sequence[str], weights_sha256: str, device: torch.device
) -> tuple[str, str]:
    """Digests of all that decides the fitted weights, and of all that decides the bundle."""
    # The backbone's weights count by what they hold, not by where they lie; the device by what it turned out
    # to be. The score and the asked rate come after the fit: another rate needs no other fit.
    later: dict[str, Any] = {"score": True, "calibration": {"target_fpr"}}
    settings = config.model_dump(mode="json", exclude={"backbone": {"weights"}, "device": True, **later})
    fitted = _digest([settings, hashes, weights_sha256, str(device), library_versions()])
    return fitted, _digest([fitted, config.model_dump(mode="json", include=later)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _alone_in(folder: Path) -> AbstractContextManager[object]:
    """Hold the run's folder: a second run there would mix its checkpoints with ours."""
    lock = FileLock(folder / "lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise FitError(f"another process is at work on this very run, in {folder}") from error


def _reusable(folder: Path, identity: str, models: Path, category: str) -> Path | None:
    """The bundle that this run published before, if it is whole."""
    try:
        finished = Finished(**json.loads((folder / FINISHED).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # none, or a half-written one
    if finished.identity == identity:
        with suppress(BundleError):  # deleted or damaged: publish again
            bundle = resolve(models, category, finished.version)
            verify(bundle)
            return bundle
    return None


def _line(row: EpochMetrics, epochs: int) -> str:
    fitted = " ".join(f"{v:.3f}" for v in row.fit_nll)
    held_out = " ".join(f"{v:.3f}" for v in row.held_out_nll)
    return (
        f"epoch {row.epoch:>3}/{epochs}  nats/dim: fit {fitted}, held out {held_out}  ({row.seconds:.1f} s)"
    )
