"""One training run from images to a published model, stage by stage."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import (
    BACKBONES,
    activate,
    active_version,
    describe_lost_calibrations,
    require_category,
    versions,
)
from flows.fastflow.calibration.review_band import describe_empty_band
from flows.fastflow.engines.device import pick_device
from flows.fastflow.engines.engine import pick_engine
from flows.fastflow.files.atomic_files import temporary_directory
from training.config.run_config import RunConfig, require_whole_positions
from training.config.unused_settings import unused_settings
from training.data.augment import require_square
from training.data.check.data_check import check
from training.data.split import describe_shortage
from training.data.training_images import TrainingImages, find_training_images
from training.features.backbone import BackboneLoader
from training.fit import stages
from training.fit.publish import DATA_CHECK
from training.fit.run_folder import begin, describe_discarded, find_published, identify, lock_folder
from training.fit.stages import Run
from training.fit.tensorboard_log import TensorBoardLog
from training.fit.training_loop import resolve_precision
from training.terminal.progress import Progress, duration


@dataclass(frozen=True)
class TrainedBundle:
    """Where a run ended.

    Attributes:
        bundle: the published directory.
        reused: True if an earlier run had already made it.
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
) -> TrainedBundle:
    """Train, calibrate and publish a model of one category, and make it the active one.

    Training images alone are read. Images for calibration are held out of the fit. A run lies in a folder
    named after all that decides its weights, so that runs with other settings never meet.

    Args:
        config: the run.
        data: folder with the category, in one of the layouts of `training.data.layout`.
        category: name of the category, and of its sub-folder.
        models: the models folder.
        runs: folder for checkpoints and cached features.
        resume: continue a killed run, or reuse a finished one, where settings and images are the same.
        progress: where to tell about it.
        backbones: what runs in turn share, so that the backbone is loaded once.
        displace: whether the model of a finished run that is reused displaces one that was made active since.

    Raises:
        ConfigError, DatasetError, PartsError, FileError, ImageError, AugmentError, WeightsError, EngineError,
            CacheError, FitError, TensorBoardError, BundleError: with the reason.
        OSError: a folder cannot be written to.
    """
    start = time.monotonic()
    require_category(category)
    torch.set_num_threads(config.fit.threads)
    device = pick_device(config.device)
    engines = [pick_engine(precision, device) for precision in config.calibration.engines]
    images = find_training_images(config, data, category)
    if images.copies:
        progress.say(f"{images.copies} images are copies of others, byte for byte: left out")
    backbones = backbones or BackboneLoader(models / BACKBONES)
    weights = backbones.weights(config.backbone)
    parts = None if images.distinct is None else images.shown.tolist()
    identity = identify(config, images.hashes, weights.sha256, device, parts)
    folder = runs / category / identity.fit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        earlier = find_published(folder, identity, models, category)
        if resume and earlier is not None:
            _reuse(earlier, images, models, category, progress, displace=displace)
            return TrainedBundle(earlier, reused=True)
        _require_writable(models / category)
        _check_data(config, data, category, folder, progress)
        _say_plan(config, images, category, device, progress)
        progress.say(f"backbone {weights.name}, weights from {weights.source}")
        extractor = backbones.extractor(config.backbone, config.input_size, device)
        require_whole_positions(config.input_size, extractor.strides, weights.name)
        logs = config.tensorboard
        log = None if logs is None else TensorBoardLog(logs / category / folder.name)
        if not resume and (lost := describe_discarded(folder, finished=earlier is not None)) is not None:
            progress.say(lost)
        run = Run(
            config=config,
            category=category,
            images=images,
            models=models,
            runs=runs,
            folder=folder,
            identity=identity,
            device=device,
            weights=weights,
            extractor=extractor,
            resume=resume,
            progress=progress,
            log=log,
        )
        features, views = stages.compute_features(run)
        begin(folder, _as_fitted(config, device), resume=resume)
        head = stages.fit_flows(run, features, views)
        scorers = stages.scorers(run, head, engines)
        bundle = stages.publish(run, scorers, stages.calibrate_by_engine(run, scorers))
        progress.say(f"it took {duration(time.monotonic() - start)}")
        return TrainedBundle(bundle, reused=False)


def _reuse(
    earlier: Path, images: TrainingImages, models: Path, category: str, progress: Progress, *, displace: bool
) -> None:
    """Say that a finished run is reused, and make its model the active one again."""
    progress.say(f"{category} was trained before with these settings and images: {earlier.name}")
    then, now = read_manifest(earlier).data.licence, images.licence
    if then != now:
        progress.say(
            f"the licence of its images was {then or 'not told'} then, and is {now or 'not told'}"
            " now: without --resume it is trained anew, and tells so"
        )
    active = active_version(models, category)
    if active == earlier.name:
        return
    if active is not None and active in versions(models, category):  # it may have been deleted
        if not displace:
            progress.say(
                f"{active} stays the active version; to put {earlier.name} in its place: flowgauge models "
                f"activate {category} {earlier.name}"
            )
            return
        progress.say(f"{earlier.name} is active again, in the place of {active}")
    activate(models, category, earlier.name)
    for line in describe_lost_calibrations(models, category, active, earlier.name):
        progress.say(line)


def _check_data(config: RunConfig, data: Path, category: str, folder: Path, progress: Progress) -> None:
    """Check the training images, and record what was found; the test images are for `data check`.

    Raises:
        DatasetError: images cannot be decoded; they are named.
    """
    checked = check(
        data,
        category,
        test=False,
        threads=config.fit.threads,
        sample_bits=config.sample_bits,
        stage=progress.stage,
    )
    (folder / DATA_CHECK).write_text(checked.model_dump_json(indent=1), encoding="utf-8")
    checked.raise_for_errors()
    for line in checked.lines():
        progress.say(line)


def _say_plan(
    config: RunConfig, images: TrainingImages, category: str, device: torch.device, progress: Progress
) -> None:
    """Say what is fitted to what, and what of the settings will not give what was hoped for.

    Raises:
        AugmentError: images are to be turned by right angles and are not square.
    """
    for line in unused_settings(config):
        progress.say(line)
    if config.augment.right_angles:
        pinned = images.pinned
        require_square([pinned[i] for i in images.split.fit])
    of_parts = "" if images.distinct is None else f" of {images.distinct} parts"
    held_out, asked = len(images.held_out), config.calibration
    progress.say(
        f"{len(images.paths)} good images{of_parts} of {category}: {len(images.split.seen)} to fit, "
        f"{held_out} held out to calibrate{', one of each part' if of_parts else ''}; on {device}"
    )
    for line in describe_shortage(held_out, asked, parts=images.distinct is not None):
        progress.say(line)
    if said := describe_empty_band(held_out, asked.target_fpr, asked.review_fpr):
        progress.say(said)
    if device.type == "cpu" and (said := _said_of_threads(config.fit.threads)):
        progress.say(said)


def _as_fitted(config: RunConfig, device: torch.device) -> RunConfig:
    """The run with the precision that it turned out to have, by which it can be made again elsewhere."""
    found = resolve_precision(config.fit.precision, device)
    return config.model_copy(update={"fit": config.fit.model_copy(update={"precision": found})})


def _said_of_threads(threads: int) -> str | None:
    """What is to be said of a number of threads on this machine's cores, if anything."""
    cores = os.cpu_count() or threads
    if threads > cores:
        return (
            f"fit.threads is {threads}, on {cores} cores: threads that wait for each other "
            f"take many times as long; --threads {cores} is faster"
        )
    if cores >= 2 * threads:
        return (
            f"fit.threads is {threads}, of {cores} cores: more, by --threads, may be faster, "
            "and change the last digits of results"
        )
    return None


def _require_writable(folder: Path) -> None:
    """Find out whether a model can be published, but make no folder: one without a version is no category.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    # In what is there: a folder that is made and removed again can be gone under another run that begins.
    with temporary_directory(next(path for path in (folder, *folder.parents) if os.path.lexists(path))):
        pass
