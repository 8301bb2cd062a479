"""One training run from pictures to a published model, stage by stage."""

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from pydantic import ValidationError

from flows.fastflow.bundle import BundleError, first_fault, read_manifest
from flows.fastflow.detector import pick_device
from flows.fastflow.engines import pick_engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.models_folder import (
    BACKBONES,
    activate,
    active_version,
    check_category,
    left_behind,
    versions,
)
from flows.fastflow.plain_files import temporary_directory
from flows.fastflow.recorded_backbone import record_of
from flows.fastflow.review_band import say_empty_band
from training import stages
from training.augment import expect_square
from training.backbone import BackboneLoader
from training.config import RunConfig, expect_whole_positions
from training.cost import Cost, ForecastError, disk_used, forecast, peak_memory
from training.datasets.check import check
from training.loop import precision_on
from training.pictures import gather
from training.progress import Progress
from training.publication import DATA_CHECK
from training.run_folder import alone_in, begin, epochs_done, given_up, identify, not_resumed, reusable
from training.split import too_few
from training.stages import Run
from training.unused import unused


@dataclass(frozen=True)
class Outcome:
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
        displace: whether the model of a finished run that is reused displaces one that was made active since.

    Raises:
        ConfigError, DatasetError, PartsError, FileError, ImageError, AugmentError, WeightsError, EngineError,
            CacheError, FitError, TensorBoardError, BundleError: with the reason.
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
    parts = None if pictures.distinct is None else pictures.shown.tolist()
    identity = identify(config, pictures.hashes, weights.sha256, device, parts)
    folder = runs / category / identity.fit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        earlier = reusable(folder, identity, models, category)
        if resume and earlier is not None:
            progress.say(f"{category} was trained before with these settings and pictures: {earlier.name}")
            then, now = read_manifest(earlier).data.licence, pictures.licence
            if then != now:
                progress.say(
                    f"the licence of its pictures was {then or 'not told'} then, and is {now or 'not told'}"
                    " now: without --resume it is trained anew, and tells so"
                )
            _activate_again(models, category, earlier.name, progress, displace=displace)
            return Outcome(earlier, reused=True)
        _expect_writable(models / category)
        # What is found in a test set is for `flowgauge data check`.
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
        for line in unused(config):
            progress.say(line)
        if config.augment.right_angles:
            pinned = pictures.pinned
            expect_square([pinned[i] for i in pictures.split.fit])
        of_parts = "" if pictures.distinct is None else f" of {pictures.distinct} parts"
        progress.say(
            f"{len(pictures.paths)} good pictures{of_parts} of {category}: "
            f"{len(pictures.split.seen)} to fit, {len(pictures.held_out)} held out to calibrate"
            f"{'' if pictures.distinct is None else ', one of each part'}; on {device}"
        )
        for line in too_few(len(pictures.held_out), config.calibration, parts=pictures.distinct is not None):
            progress.say(line)
        asked = config.calibration
        if said := say_empty_band(len(pictures.held_out), asked.target_fpr, asked.review_fpr):
            progress.say(said)
        if device.type == "cpu" and (said := _said_of_threads(config.fit.threads)):
            progress.say(said)
        progress.say(f"backbone {weights.name}, weights from {weights.source}")
        extractor = _describable(backbones.extractor(config.backbone, config.input_size, device))
        expect_whole_positions(config.input_size, extractor.strides, weights.name)
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
            extractor=extractor,
            epochs_done=epochs_done(folder) if resume else 0,
            resume=resume,
            progress=progress,
        )
        if resume and run.epochs_done == 0 and (said := not_resumed(folder)) is not None:
            progress.say(said)
        cache = stages.feature_cache(run)
        if not resume and (lost := given_up(folder, finished=earlier is not None)) is not None:
            progress.say(lost)
        first = None
        try:
            expected, first = forecast(
                config, pictures, cache, folder=folder, models=models, epochs_done=run.epochs_done
            )
            progress.say(f"forecast: {expected}")
        except ForecastError as error:
            progress.say(f"forecast: none, for the cost could not be measured: {error}")
        with stages.opened_log(run) as log:
            clock = [time.monotonic()]
            with stages.opened_features(run, cache, first) as features:
                clock.append(time.monotonic())
                begin(folder, _as_fitted(config, device), resume=resume)
                head = stages.fit_flows(run, cache, features, log)
            clock.append(time.monotonic())
            fitted = stages.scorers(run, head, engines)
            calibrated = stages.calibrate_by_engine(run, fitted, log)
            clock.append(time.monotonic())
        bundle = stages.publish(run, fitted, calibrated)
        first_stage, second, third = (later - earlier for earlier, later in pairwise(clock))
        taken = Cost(first_stage, second, third, disk_used(cache, folder, bundle), peak_memory())
        progress.say(f"it took:  {taken}")
        return Outcome(bundle, reused=False)


def _as_fitted(config: RunConfig, device: torch.device) -> RunConfig:
    """The run with the precision that it turned out to have, by which it can be made again elsewhere."""
    found = precision_on(config.fit.precision, device)
    return config.model_copy(update={"fit": config.fit.model_copy(update={"precision": found})})


def _activate_again(models: Path, category: str, version: str, progress: Progress, *, displace: bool) -> None:
    """Make a version of before the active one, and say so where another one was put in its place since."""
    active = active_version(models, category)
    if active == version:
        return
    if active is not None and active in versions(models, category):  # it may have been deleted
        if not displace:
            progress.say(
                f"{active} stays the active version; to put {version} in its place: flowgauge models "
                f"activate {category} {version}"
            )
            return
        progress.say(f"{version} is active again, in the place of {active}")
    activate(models, category, version)
    for line in left_behind(models, category, active, version):
        progress.say(line)


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


def _expect_writable(folder: Path) -> None:
    """Find out whether a model can be published, but make no folder: one without a version is no category.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    # In what is there: a folder that is made and removed again can be gone under another run that begins.
    with temporary_directory(next(path for path in (folder, *folder.parents) if os.path.lexists(path))):
        pass


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
