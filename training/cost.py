"""What a run will take of time, disk and memory, measured on a few pictures before it begins."""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import Head
from flows.fastflow.images import ImageError
from flows.fastflow.memory import module_bytes
from flows.fastflow.scorer import Scorer
from flows.fastflow.uninitialised import Uninitialised
from training.cache_folder import DiskSpaceError
from training.config import RunConfig
from training.datasets.sample import DatasetError
from training.feature_cache import FeatureCache, Features
from training.loop import FitError, fit
from training.pictures import Pictures
from training.pinned import Pinned, expect_there, read
from training.run_folder import checkpoint_bytes
from training.split import Split

if sys.platform != "win32":
    import resource

T = TypeVar("T")

_STEPS = 4  # of the flow that are timed; the first is slower and not counted
_QUICK = 2.0  # seconds that a first pass may take to be worth a second, which is no longer warming up
_FOLDER = "forecast"


class ForecastError(RuntimeError):
    """What a run takes could not be measured."""


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        features: seconds to compute features that are not cached.
        fit: seconds of the fit.
        calibration: seconds to score the held-out pictures.
        disk: bytes of features, checkpoint and bundle, whether there before or not.
        memory: peak of the process in bytes, mapped features included; 0 where the system does not tell.
    """

    features: float
    fit: float
    calibration: float
    disk: int
    memory: int

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.features + self.fit + self.calibration

    def __str__(self) -> str:
        memory = f", memory {size(self.memory)}" if self.memory else ""
        return (
            f"{duration(self.seconds)} (features {duration(self.features)}, fit {duration(self.fit)}, "
            f"calibration {duration(self.calibration)}), disk {size(self.disk)}{memory}"
        )


def forecast(
    config: RunConfig,
    pictures: Pictures,
    cache: FeatureCache,
    *,
    folder: Path,
    models: Path,
    epochs_done: int,
) -> tuple[Cost, Features]:
    """Measure a few passes of the backbone and steps of a flow that is thrown away.

    Nothing that a result depends on is changed: the generators of random numbers are put back.

    Args:
        config: the run.
        pictures: of the run.
        cache: the features it will use.
        folder: of the run; what is written there meanwhile is removed.
        models: where the bundle goes, which may be another disk.
        epochs_done: epochs that a checkpoint spares.

    Returns:
        The forecast; and the features of the first batch, which need not be computed again.

    Raises:
        DiskSpaceError: the disk is too full for it; nothing has been written.
        ImageError, AugmentError: a picture cannot be read or changed.
        DatasetError: pictures are gone or were changed since the run began; they are named.
        FitError: the features are of no use, or the fit diverges whatever its rate.
        OSError: the folder cannot be written to.
        ForecastError: anything else went wrong, of which nobody knows whether the run will suffer from it.
    """
    expect_there(pictures.pinned)
    first, per_view = _time_backbone(cache)
    rows = pictures.rows(cache.views)
    checkpoint, bundle = _head_bytes(config, first)
    features = cache.nbytes(first)
    # A checkpoint is written beside the one it replaces. The bundle also holds three pictures.
    golden = 3 * max(path.stat().st_size for path in pictures.paths)
    published = bundle + golden
    kept = checkpoint + published
    # An earlier run's checkpoint is replaced or goes.
    needed = max(0, kept + checkpoint - checkpoint_bytes(folder)) + (0 if cache.there else features)
    _expect_room(cache, folder, needed)
    place = next(path for path in (models, *models.parents) if path.exists())  # it may be the first model
    if published > (free := shutil.disk_usage(place).free):
        raise DiskSpaceError(
            f"the model needs {size(published)} of disk, and {models} has {size(free)} left: free some, or "
            "let --models name a folder on a larger disk"
        )
    device = cache.extractor.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            held_out = pictures.pinned_held_out[0]
            timed = _time_flow(config, cache.extractor, first, held_out, len(rows.fit), folder)
        except (FitError, ImageError, DatasetError, OSError):  # the run would end by them too, after hours
            raise
        except Exception as error:
            raise ForecastError(f"{type(error).__name__}: {error}") from error
    watched = len(rows.calibration) + len(rows.validation)
    epoch = timed.step * config.fit.batches_of(len(rows.fit)) + timed.held_out * watched + timed.save
    epochs = config.fit.epochs_for(len(rows.fit))
    engines = len(config.calibration.engines)
    cost = Cost(
        features=0 if cache.there else per_view * len(cache.views),
        fit=epoch * (epochs - epochs_done),
        calibration=timed.score * len(pictures.held_out) * engines,
        disk=features + kept,
        # Mapped features count as the process's memory as soon as they have been read, though the system
        # takes those pages back where others need them.
        memory=peak_memory() + features if peak_memory() else 0,
    )
    return cost, first


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def disk_used(cache: FeatureCache, folder: Path, bundle: Path) -> int:
    """Bytes of a run's features, of its folder and of its bundle; of what goes meanwhile, none."""
    total = 0
    for tree in (cache.folder.folder / cache.name, folder, bundle):
        for parent, _, names in os.walk(tree):
            for name in names:
                with suppress(OSError):  # as features that another run makes room by
                    total += Path(parent, name).stat().st_size
    return total


def duration(seconds: float) -> str:
    """Seconds as a person says them: "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(nbytes: float) -> str:
    """Bytes as a person says them: "12 MiB", "1.4 GiB"."""
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.0f} MiB"


def _time_backbone(cache: FeatureCache) -> tuple[Features, float]:
    """The features of the first batch, and seconds a picture."""
    seconds, first = _timed(lambda: cache.compute(0))
    if seconds < _QUICK and not cache.there:
        seconds, first = _timed(lambda: cache.compute(0))
    return first, seconds / len(first[0])


@dataclass(frozen=True)
class _Flow:
    """Seconds: of a step, of a held-out picture in an epoch, of a checkpoint, of a picture scored."""

    step: float
    held_out: float
    save: float
    score: float


def _time_flow(
    config: RunConfig, extractor: FeatureExtractor, first: Features, picture: Pinned, rows: int, folder: Path
) -> _Flow:
    """Run the very loop for an epoch of a few batches, all of the same pictures."""
    batch = min(config.fit.batch_size, rows)
    repeated = [np.resize(array, (batch * _STEPS, *array.shape[1:])) for array in first]
    # With a rate at which no setting diverges: what does will say so in the fit itself.
    once = config.fit.model_copy(
        update={"epochs": 1, "batch_size": batch, "learning_rate": 1e-6, "stopping": None}
    )
    short = config.model_copy(update={"fit": once})
    place = folder / _FOLDER
    shutil.rmtree(place, ignore_errors=True)  # of a killed run
    place.mkdir()
    marks: list[float] = []
    try:
        head = fit(
            short,
            repeated,
            Split(np.arange(batch * _STEPS), np.arange(batch)),
            device=extractor.device,
            folder=place,
            identity=_FOLDER,
            resume=False,
            on_batch=lambda _: marks.append(time.monotonic()),
            on_epoch=lambda _: marks.append(time.monotonic()),
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    step = statistics.median(np.diff(marks[:-1]))
    # An evaluation is the forward pass of a step, about a third of it.
    evaluation = step / 3
    save = max(0.0, marks[-1] - marks[-2] - evaluation)
    rule = config.score.rule(head, config.geometry)
    scorer = Scorer(extractor, head, config.input_size, rule, config.geometry)

    def score_it() -> None:
        scorer.score([read(picture, config.sample_bits)])

    score_it()
    score, _ = _timed(score_it)
    return _Flow(step, evaluation / batch, save, score)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.monotonic()
    result = work()
    return time.monotonic() - start, result


def _head_bytes(config: RunConfig, maps: Features) -> tuple[int, int]:
    """Bytes of a head's checkpoint and of the head in a bundle, for maps of these sizes."""
    channels, sizes = [x.shape[1] for x in maps], config.gaussian.sizes(maps)
    with torch.device("meta"), Uninitialised():  # only sizes are asked for
        head = Head(channels, config.normalisation, config.flow, sizes, seed=config.seed)
    # Adam keeps two moments of what is learned, `fit.stopping` the best epoch's weights.
    copies = 2 if config.fit.stopping is None else 3
    return module_bytes(head) + copies * module_bytes(head.flow), module_bytes(head)


def _expect_room(cache: FeatureCache, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    given_back = 0 if cache.there else cache.folder.evictable()
    if needed > free + given_back:
        raise DiskSpaceError(
            f"the run needs {size(needed)} of disk for features, checkpoints and the bundle, and {folder} "
            f"has {size(free)} left: free some, let --runs name a folder on a larger disk, or take a smaller "
            "input_size, fewer stages or fewer augment.copies"
        )
