"""One training run: data, features, fit, calibration, publication."""

import time
from dataclasses import dataclass
from pathlib import Path

from flows.fastflow.progress import duration
from training.config.run_config import RunConfig
from training.features.backbone import BackboneLoader
from training.fit.checks import announce_restart, check_run
from training.fit.preparation import prepare_run
from training.fit.publish import publish_version
from training.fit.reuse import reuse_version
from training.fit.run_folder import begin_fit, find_published, lock_folder
from training.fit.stages import (
    build_scorers,
    calibrate_engines,
    compute_features,
    describe_good_images,
    fit_flows,
    load_extractor,
)
from training.fit.starter import cross_calibrate, fit_starter
from training.fit.tensorboard_log import TensorBoardLog
from training.terminal.progress import Progress


@dataclass(frozen=True)
class TrainedBundle:
    """The result of a run.

    Attributes:
        bundle: the published directory.
        reused: True if an earlier run published it.
    """

    bundle: Path
    reused: bool


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
    displace: bool = True,
    make_active: bool = True,
    lock_seconds: float = 0,
) -> TrainedBundle:
    """Train, calibrate and publish a model of one category, and make it the active one.

    Only training images are read. Images for calibration are held out of the fit.

    Args:
        data: folder with the category, in one of the layouts of `training.data.layout`.
        runs: folder of checkpoints and cached features.
        resume: continue a killed run, or reuse a finished one, if settings and images are the same.
        backbones: loader shared by successive runs, so that the backbone is loaded once.
        displace: activate a reused model even if another one was activated since.
        make_active: False leaves the active model as it is.
        lock_seconds: how long to wait for another process that is at work on this run.

    Raises:
        ConfigError, DatasetError, PartsError, FileError, ImageError, AugmentError, WeightsError, EngineError,
            CacheError, FitError, TensorBoardError, BundleError: with the reason.
        OSError: a folder cannot be written to.
    """
    start = time.monotonic()
    run = prepare_run(
        config, data, category, models, runs, resume=resume, progress=progress, backbones=backbones
    )
    with lock_folder(run.folder, lock_seconds):
        published = find_published(run.folder, run.identity, models, category)
        if resume and published is not None:
            reuse_version(run, published, displace=displace, make_active=make_active)
            return TrainedBundle(published, reused=True)
        check_run(run)
        extractor = load_extractor(run)
        logs = config.tensorboard
        log = None if logs is None else TensorBoardLog(logs / category / run.folder.name)
        announce_restart(run, finished=published is not None)
        features, tiles = compute_features(run, extractor)
        begin_fit(run.folder, run.fitted_config, resume=resume)
        if run.config.starter:
            scorers = build_scorers(run, extractor, fit_starter(run, features, tiles))
            calibrations = cross_calibrate(run, extractor, features, tiles)
            descriptions = None
        else:
            scorers = build_scorers(run, extractor, fit_flows(run, features, tiles, log))
            calibrations = calibrate_engines(run, scorers)
            descriptions = describe_good_images(run, scorers, calibrations)
        with progress.stage("publish", 1):
            bundle = publish_version(run, scorers, calibrations, descriptions, make_active=make_active)
        progress.say(f"it took {duration(time.monotonic() - start)}")
        return TrainedBundle(bundle, reused=False)
