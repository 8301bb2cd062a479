"""The stages of a training run, from cached features to a published model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.weights import Weights, save_weights
from flows.fastflow.bundle.models_folder import BACKBONES, activate, describe_lost_calibrations
from flows.fastflow.calibration.highest_scores import describe_highest_scoring, highest_scoring
from flows.fastflow.detector import Detector
from flows.fastflow.engines.engine import Engine
from flows.fastflow.files.atomic_files import remove_abandoned
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.manifest import Precision
from flows.fastflow.model.head import Head
from training.config.run_config import RunConfig
from training.data.tiles import TrainingTile, choose
from training.data.training_images import TrainingImages
from training.features.cache import GIB, FeatureCache, Features
from training.fit.calibrate import EngineCalibration, calibrate
from training.fit.publish import publish_model
from training.fit.run_folder import Identity, finish
from training.fit.tensorboard_log import TensorBoardLog
from training.fit.training_loop import EpochMetrics, fit
from training.terminal.progress import Progress, duration


@dataclass(frozen=True)
class Run:
    """What the stages of a run share.

    Attributes:
        config: the run's settings.
        category: what is learned.
        images: to learn it from.
        models: the models folder.
        runs: folder of runs and cached features.
        folder: of this run, within `runs`.
        identity: what this run is told from others by.
        device: that computes.
        weights: of the backbone.
        extractor: the backbone.
        resume: whether a checkpoint is continued.
        progress: where to tell about it.
        log: for TensorBoard, or None.
    """

    config: RunConfig
    category: str
    images: TrainingImages
    models: Path
    runs: Path
    folder: Path
    identity: Identity
    device: torch.device
    weights: Weights
    extractor: FeatureExtractor
    resume: bool
    progress: Progress
    log: TensorBoardLog | None


def compute_features(run: Run) -> tuple[Features, list[TrainingTile]]:
    """Compute the features of all images and of their changed copies, or find them in the cache."""
    config, strides = run.config, run.extractor.strides
    tiles = choose(run.images.pinned, config.geometry, config.input_size, strides, config.fit.tiles)
    views = run.images.views(config.augment, config.seed, tiles)
    cache = FeatureCache(
        run.runs / "features",
        round(config.feature_cache.max_gib * GIB),
        run.extractor,
        views,
        input_size=config.input_size,
        batch_size=config.backbone.batch_size,
        geometry=config.geometry,
        sample_bits=config.sample_bits,
    )
    with run.progress.stage("features", len(views)) as advance:
        return cache.features(advance, run.progress.say), views


def fit_flows(run: Run, features: Features, views: Sequence[TrainingTile]) -> Head:
    """Fit the flows to the feature maps of the images that are not held out."""
    settings = run.config.fit
    rows = run.images.rows(views)
    epochs = settings.epochs_for(len(rows.fit))

    def tell(row: EpochMetrics) -> None:
        run.progress.say(_line(row, epochs))
        if run.log is not None:
            run.log.epoch(row)

    with run.progress.stage("fit", settings.batches_of(len(rows.fit)) * epochs) as advance:
        return fit(
            run.config,
            features,
            rows,
            device=run.device,
            folder=run.folder,
            identity=run.identity.fit,
            resume=run.resume,
            on_batch=advance,
            on_epoch=tell,
        )


def scorers(run: Run, head: Head, engines: Sequence[Engine]) -> dict[Precision, Scorer]:
    """The fitted model, computed by each of the engines."""
    config = run.config
    rule = config.score.rule(head, config.geometry)
    return {
        engine.precision: Scorer(run.extractor, head, config.input_size, rule, config.geometry, engine)
        for engine in engines
    }


def calibrate_by_engine(run: Run, engines: Mapping[Precision, Scorer]) -> dict[Precision, EngineCalibration]:
    """Set thresholds by the held-out images, for every engine by the scores that it gives itself."""
    held_out = run.images.pinned_held_out
    target_fpr = run.config.calibration.target_fpr
    with run.progress.stage("calibrate", len(held_out) * len(engines)) as advance:
        calibrated = {
            name: calibrate(engine, held_out, target_fpr, advance, run.config.sample_bits)
            for name, engine in engines.items()
        }
    scores = calibrated["float32"].scores
    first = highest_scoring([one.path.name for one in held_out], scores)
    run.progress.say(describe_highest_scoring(first, scores, target_fpr))
    return calibrated


def publish(
    run: Run, engines: Mapping[Precision, Scorer], calibrated: Mapping[Precision, EngineCalibration]
) -> Path:
    """Write the bundle, load it once as a server will, and make it the active one."""
    remove_abandoned(run.models / BACKBONES)
    save_weights(run.weights, run.models / BACKBONES)
    bundle = publish_model(
        run.config,
        run.category,
        run.models,
        engines,
        calibrated,
        run.images,
        run.folder,
    )
    # As a server will load it: a bundle that would be refused there must not become the active one.
    Detector.load(bundle, device=str(run.device), backbone=run.extractor)
    before = activate(run.models, run.category, bundle.name)
    for line in describe_lost_calibrations(run.models, run.category, before, bundle.name):
        run.progress.say(line)
    finish(run.folder, run.identity, bundle.name)
    return bundle


def _line(row: EpochMetrics, epochs: int) -> str:
    """Say what an epoch came to, and what the rest takes if every epoch takes as long."""
    fitted = " ".join(f"{v:.3f}" for v in row.fit_nll)
    held_out = " ".join(f"{v:.3f}" for v in row.held_out_nll)
    left = "" if row.epoch == epochs else f", {duration(row.seconds * (epochs - row.epoch))} left"
    return (
        f"epoch {row.epoch:>3}/{epochs}  nats/dim: fit {fitted}, held out {held_out}  "
        f"({row.seconds:.1f} s{left})"
    )
