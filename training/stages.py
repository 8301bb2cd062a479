"""The stages of a training run, from cached features to a published model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from flows.fastflow.detector import Detector
from flows.fastflow.engines import Engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import Head
from flows.fastflow.highest import highest, say_highest
from flows.fastflow.manifest import Precision
from flows.fastflow.models_folder import BACKBONES, activate, left_behind
from flows.fastflow.plain_files import sweep
from flows.fastflow.scorer import Scorer
from flows.fastflow.weights import Weights, save_weights
from training.cache_folder import GIB, CacheFolder
from training.calibrate import Calibrated, calibrate
from training.config import RunConfig
from training.feature_cache import FeatureCache, Features
from training.loop import EpochMetrics, final_metrics, fit
from training.pictures import Pictures
from training.pinned import expect_there
from training.progress import Progress
from training.publication import publish_model
from training.run_folder import Identity, finish
from training.tensorboard_log import TensorBoardLog
from training.tiles import choose


@dataclass(frozen=True)
class Run:
    """What the stages of a run share.

    Attributes:
        config: the run's settings.
        category: what is learned.
        pictures: to learn it from.
        models: the models folder.
        runs: folder of runs and cached features.
        folder: of this run, within `runs`.
        identity: what this run is told from others by.
        device: that computes.
        weights: of the backbone.
        extractor: the backbone.
        epochs_done: that a checkpoint spares.
        resume: whether a checkpoint is continued.
        progress: where to tell about it.
    """

    config: RunConfig
    category: str
    pictures: Pictures
    models: Path
    runs: Path
    folder: Path
    identity: Identity
    device: torch.device
    weights: Weights
    extractor: FeatureExtractor
    epochs_done: int
    resume: bool
    progress: Progress


def feature_cache(run: Run) -> FeatureCache:
    """The features of all pictures and of their copies, which may be there already."""
    config, strides = run.config, run.extractor.strides
    tiles = choose(run.pictures.pinned, config.geometry, config.input_size, strides, config.fit.tiles)
    return FeatureCache(
        CacheFolder(run.runs / "features", round(config.feature_cache.max_gib * GIB)),
        run.extractor,
        run.pictures.views(config.augment, config.seed, tiles),
        input_size=config.input_size,
        batch_size=config.backbone.batch_size,
        geometry=config.geometry,
        sample_bits=config.sample_bits,
    )


def opened_log(run: Run) -> AbstractContextManager[TensorBoardLog | None]:
    """What TensorBoard shows, where that was asked for."""
    if run.config.tensorboard is None:
        return nullcontext()
    return TensorBoardLog(run.config.tensorboard / run.category / run.folder.name, run.config)


@contextmanager
def opened_features(run: Run, cache: FeatureCache, first: Features | None) -> Iterator[Features]:
    """The features themselves, held while they are used."""
    with ExitStack() as stack:
        with run.progress.stage("features", len(cache.views)) as advance:
            features = stack.enter_context(cache.features(advance, first))
        yield features


def fit_flows(run: Run, cache: FeatureCache, features: Features, log: TensorBoardLog | None) -> Head:
    """The flows, fitted to the feature maps of the pictures that are not held out."""
    settings = run.config.fit
    rows = run.pictures.rows(cache.views)
    epochs = settings.epochs_for(len(rows.fit))

    def tell(row: EpochMetrics) -> None:
        run.progress.say(_line(row, epochs))
        if log is not None:
            log.epoch(row)

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


def calibrate_by_engine(
    run: Run, engines: Mapping[Precision, Scorer], log: TensorBoardLog | None
) -> dict[Precision, Calibrated]:
    """Thresholds from the held-out pictures, for every engine by the scores that it gives itself."""
    held_out = run.pictures.pinned_held_out
    expect_there(held_out)
    target_fpr = run.config.calibration.target_fpr
    with run.progress.stage("calibrate", len(held_out) * len(engines)) as advance:
        calibrated = {
            name: calibrate(engine, held_out, target_fpr, advance, run.config.sample_bits)
            for name, engine in engines.items()
        }
    scores = calibrated["float32"].scores
    first = highest([one.path.name for one in held_out], scores)
    run.progress.say(say_highest(first, scores, target_fpr))
    if log is not None:
        log.end(calibrated["float32"], engines["float32"], held_out, final_metrics(run.folder))
    return calibrated


def publish(
    run: Run, engines: Mapping[Precision, Scorer], calibrated: Mapping[Precision, Calibrated]
) -> Path:
    """The bundle, written, loaded once as a server will, and made the active one."""
    sweep(run.models / BACKBONES)
    save_weights(run.weights, run.models / BACKBONES)
    bundle = publish_model(
        run.config,
        run.category,
        run.models,
        engines,
        calibrated,
        run.pictures.pinned_held_out,
        run.pictures.record,
        [run.pictures.hashes[i] for i in run.pictures.split.seen],
        [run.pictures.hashes[i] for i in run.pictures.known],
        run.folder,
    )
    # As a server will load it: a bundle that would be refused there must not become the active one.
    Detector.load(bundle, device=str(run.device), backbone=run.extractor)
    before = activate(run.models, run.category, bundle.name)
    for line in left_behind(run.models, run.category, before, bundle.name):
        run.progress.say(line)
    finish(run.folder, run.identity, bundle.name)
    return bundle


def _line(row: EpochMetrics, epochs: int) -> str:
    fitted = " ".join(f"{v:.3f}" for v in row.fit_nll)
    held_out = " ".join(f"{v:.3f}" for v in row.held_out_nll)
    return (
        f"epoch {row.epoch:>3}/{epochs}  nats/dim: fit {fitted}, held out {held_out}  ({row.seconds:.1f} s)"
    )
