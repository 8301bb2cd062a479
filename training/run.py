"""One training run from pictures to a published model, stage by stage."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from pydantic import ValidationError

from flows.fastflow.bundle import BundleError, first_fault
from flows.fastflow.detector import Detector, pick_device
from flows.fastflow.engines import pick_engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import Head
from flows.fastflow.manifest import Precision
from flows.fastflow.models_folder import BACKBONES, activate, check_category
from flows.fastflow.plain_files import sweep, temporary_directory
from flows.fastflow.recorded_backbone import record_of
from flows.fastflow.scorer import Scorer
from flows.fastflow.weights import Weights, save_weights
from training.augment import expect_square
from training.backbone import BackboneLoader
from training.cache_folder import GIB, CacheFolder
from training.calibrate import Calibrated
from training.config import RunConfig
from training.cost import Cost, disk_used, forecast, peak_memory
from training.cross import calibrate_engines, final_metrics, fit_heads, scorers
from training.datasets.check import check
from training.feature_cache import FeatureCache, Features
from training.loop import EpochMetrics
from training.pictures import Pictures, gather
from training.publication import DATA_CHECK, publish_model
from training.run_folder import (
    Identity,
    alone_in,
    begin,
    epochs_done,
    finish,
    identify,
    reusable,
    start_over,
)
from training.tensorboard_log import TensorBoardLog
from training.tiles import choose


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


def train(
    config: RunConfig,
    data: Path,
    category: str,
    *,
    models: Path,
    runs: Path,
    resume: bool,
    progress: Progress,
    backbones: BackboneLoader | None = None,
) -> Outcome:
    """Train, calibrate and publish a model of one category, and make it the active one.

    Training pictures alone are read. Pictures for calibration are held out of the fit. A run lies in a folder
    named after all that decides its weights, so that runs with other settings never meet.

    Args:
        config: the run.
        data: folder with the category, in one of the layouts of `training.datasets.layout`.
        category: name of the category, and of its sub-folder.
        models: the models folder.
        runs: folder for checkpoints and cached features.
        resume: continue a killed run, or reuse a finished one, where settings and pictures are the same.
        progress: where to tell about it.
        backbones: what runs in turn share, so that the backbone is loaded once.

    Raises:
        DatasetError, ImageError, AugmentError, WeightsError, EngineError, CacheError, FitError,
            TensorBoardError, BundleError: with the reason.
        OSError: a folder cannot be written to.
    """
    check_category(category)
    torch.set_num_threads(config.fit.threads)
    device = pick_device(config.device)
    engines = [pick_engine(precision, device) for precision in config.calibration.engines]
    pictures = gather(config, data, category)
    if pictures.copies:
        progress.say(f"{pictures.copies} pictures are copies of others, byte for byte: left out")
    backbones = backbones or BackboneLoader(models / BACKBONES)
    weights = backbones.weights(config.backbone)
    identity = identify(config, pictures.hashes, weights.sha256, device)
    folder = runs / category / identity.fit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        if resume and (bundle := reusable(folder, identity, models, category)) is not None:
            activate(models, category, bundle.name)
            progress.say(f"{category} was trained before with these settings and pictures")
            return Outcome(bundle, reused=True)
        begin(folder, config)
        _expect_writable(models / category)
        # What is found in a test set is for `flowgauge data check`.
        checked = check(data, category, test=False, threads=config.fit.threads, stage=progress.stage)
        (folder / DATA_CHECK).write_text(checked.model_dump_json(indent=1))
        checked.raise_for_errors()
        for line in checked.lines():
            progress.say(line)
        if config.augment.right_angles:
            expect_square([pictures.paths[i] for i in pictures.fitted])
        progress.say(
            f"{len(pictures.paths)} good pictures of {category}: {len(pictures.seen)} to fit, "
            f"{len(pictures.held_out)} {'in folds' if pictures.folds is not None else 'held out'} to "
            f"calibrate; on {device}"
        )
        progress.say(f"backbone {weights.name}, weights from {weights.source}")
        run = Run(
            config=config,
            category=category,
            pictures=pictures,
            models=models,
            runs=runs,
            folder=folder,
            identity=identity,
            device=device,
            weights=weights,
            extractor=_describable(backbones.extractor(config.backbone, config.input_size, device)),
            epochs_done=epochs_done(folder) if resume else 0,
            resume=resume,
            progress=progress,
        )
        cache = _cache(run)
        if not resume and (lost := epochs_done(folder)):
            progress.say(
                f"an earlier run with these settings and pictures came to {lost} epochs; --resume would "
                "continue it, this one begins anew"
            )
        expected, first = forecast(config, pictures, cache, folder=folder, epochs_done=run.epochs_done)
        progress.say(f"forecast: {expected}")
        with _log(run) as log:
            clock = [time.monotonic()]
            with _features(run, cache, first) as features:
                clock.append(time.monotonic())
                if not resume:
                    start_over(folder)
                heads = _fit(run, cache, features, log)
            clock.append(time.monotonic())
            fitted = scorers(config, run.extractor, heads, engines)
            calibrated = _calibrate(run, fitted, log)
            clock.append(time.monotonic())
        bundle = _publish(run, fitted, calibrated)
        first_stage, second, third = (later - earlier for earlier, later in pairwise(clock))
        taken = Cost(first_stage, second, third, disk_used(cache, folder, bundle), peak_memory())
        progress.say(f"it took:  {taken}")
        return Outcome(bundle, reused=False)


def _expect_writable(folder: Path) -> None:
    """Find out whether a model can be published, and leave no trace: a category without a version is none.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with temporary_directory(folder):
        pass
    with suppress(OSError):  # somebody else uses it by now
        for path in missing:
            path.rmdir()


def _describable(extractor: FeatureExtractor) -> FeatureExtractor:
    """The backbone, which a bundle's manifest must be able to describe.

    Raises:
        BundleError: it cannot, for instance for too many channels.
    """
    try:
        record_of(extractor)
    except ValidationError as error:
        raise BundleError(f"no model can have this backbone: {first_fault(error)}") from error
    return extractor


def _cache(run: Run) -> FeatureCache:
    """The features of all pictures and of their copies, which may be there already."""
    config, strides = run.config, run.extractor.strides
    tiles = choose(run.pictures.paths, config.geometry, config.input_size, strides, config.fit.tiles)
    return FeatureCache(
        CacheFolder(run.runs / "features", round(config.feature_cache.max_gib * GIB)),
        run.extractor,
        run.pictures.views(config.augment, config.seed, tiles),
        input_size=config.input_size,
        batch_size=config.backbone.batch_size,
        geometry=config.geometry,
    )


def _log(run: Run) -> AbstractContextManager[TensorBoardLog | None]:
    """What TensorBoard shows, where that was asked for."""
    if run.config.tensorboard is None:
        return nullcontext()
    return TensorBoardLog(run.config.tensorboard / run.category / run.folder.name, run.config)


@contextmanager
def _features(run: Run, cache: FeatureCache, first: Features) -> Iterator[Features]:
    """The features themselves, held while they are used."""
    with ExitStack() as stack:
        with run.progress.stage("features", len(cache.views)) as advance:
            features = stack.enter_context(cache.features(advance, first))
        yield features


def _fit(run: Run, cache: FeatureCache, features: Features, log: TensorBoardLog | None) -> list[Head]:
    """The flows, fitted to the feature maps of the pictures that are not held out."""
    settings = run.config.fit
    rows = run.pictures.rows(cache.views)
    epochs = settings.epochs_for(len(rows[0].fit))
    batches = sum(settings.batches_of(len(r.fit)) * settings.epochs_for(len(r.fit)) for r in rows)

    def tell(head: int, row: EpochMetrics) -> None:
        run.progress.say(_line(row, epochs))
        if log is not None:
            log.epoch(row, fold=head if len(rows) > 1 else None)

    with run.progress.stage("fit", batches) as advance:
        return fit_heads(
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


def _calibrate(
    run: Run, engines: Mapping[Precision, Scorer], log: TensorBoardLog | None
) -> dict[Precision, Calibrated]:
    """Thresholds from the held-out pictures, for every engine."""
    held_out, folds = run.pictures.held_out, run.pictures.folds
    target_fpr = run.config.calibration.target_fpr
    with run.progress.stage("calibrate", len(held_out) * len(engines)) as advance:
        calibrated = calibrate_engines(engines, held_out, folds, target_fpr, advance)
    if log is not None:
        reached = final_metrics(run.folder, len(run.pictures.parts))
        log.end(calibrated["float32"], engines["float32"], held_out, reached)
    return calibrated


def _publish(
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
        run.pictures.held_out,
        run.pictures.record,
        [run.pictures.hashes[i] for i in run.pictures.seen],
        [run.pictures.hashes[i] for i in run.pictures.calibrating],
        run.folder,
    )
    # As a server will load it: a bundle that would be refused there must not become the active one.
    Detector.load(bundle, device=str(run.device), backbone=run.extractor)
    activate(run.models, run.category, bundle.name)
    finish(run.folder, run.identity, bundle.name)
    return bundle


def _line(row: EpochMetrics, epochs: int) -> str:
    fitted = " ".join(f"{v:.3f}" for v in row.fit_nll)
    held_out = " ".join(f"{v:.3f}" for v in row.held_out_nll)
    return (
        f"epoch {row.epoch:>3}/{epochs}  nats/dim: fit {fitted}, held out {held_out}  ({row.seconds:.1f} s)"
    )
