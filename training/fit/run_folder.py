"""The folder of a run: named after all that decides its weights, held by one process, reused when done."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from flows.fastflow.bundle.bundle import BundleError, verify
from flows.fastflow.bundle.models_folder import resolve
from training.config.run_config import RunConfig, dump_config
from training.fit.publish import CONFIG
from training.fit.training_loop import CHECKPOINT, METRICS, FitError, resolve_precision
from training.versions import library_versions

FINISHED = "finished.json"


@dataclass(frozen=True)
class Finished:
    """What a run leaves when it is done: its identity, and the version it published."""

    identity: str
    version: str


@dataclass(frozen=True)
class Identity:
    """Digests by which a run is told from others.

    Attributes:
        fit: of all that decides the fitted weights.
        bundle: of all that decides the bundle.
    """

    fit: str
    bundle: str


def identify(
    config: RunConfig,
    hashes: Sequence[str],
    weights_sha256: str,
    device: torch.device,
    parts: Sequence[int] | None = None,
) -> Identity:
    """The identity of a run.

    Args:
        config: the run.
        hashes: sha256 of each image.
        weights_sha256: digest of the backbone's weights.
        device: that computes.
        parts: the number of the part that each image shows; None where each shows another.
    """
    # The backbone's weights count by what they hold, not by where they lie; the device by what it turned out
    # to be. The score and the asked rate come after the fit: another rate needs no other fit.
    later: dict[str, Any] = {"score": True, "calibration": {"target_fpr", "review_fpr", "engines"}}
    never: dict[str, Any] = {
        "backbone": {"weights"},
        "device": True,
        "feature_cache": True,
        "tensorboard": True,
    }
    settings = config.model_dump(mode="json", exclude=never | later)
    settings["fit"]["precision"] = resolve_precision(config.fit.precision, device)
    decides = [settings, hashes, weights_sha256, str(device), library_versions()]
    fitted = _digest(decides if parts is None else [*decides, parts])
    return Identity(fitted, _digest([fitted, config.model_dump(mode="json", include=later)]))


def lock_folder(folder: Path) -> AbstractContextManager[object]:
    """Hold the run's folder: a second run there would mix its checkpoints with ours.

    Raises:
        FitError: another process holds it.
    """
    lock = FileLock(folder / "lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise FitError(f"another process is at work on this very run, in {folder}") from error


def begin(folder: Path, config: RunConfig, *, resume: bool) -> None:
    """Make ready for a fit: write the settings, and forget what a killed process left half written.

    Unless the run is resumed, forget too how far it had come, and that it ended before.
    """
    for left in folder.glob(".*.part"):
        shutil.rmtree(left, ignore_errors=True)
    if not resume:
        (folder / FINISHED).unlink(missing_ok=True)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")


def describe_discarded(folder: Path, *, finished: bool) -> str | None:
    """What a run that does not resume gives up, in words; None where there is nothing.

    Args:
        folder: of the run.
        finished: whether an earlier one has published its model.
    """
    if finished:
        done, instead = "is finished", "take its model"
    elif epochs := epochs_done(folder):
        done, instead = f"has made {_epochs(epochs)}", "go on from there"
    else:
        return None
    return (
        f"an earlier run with these settings and images {done}; --resume would {instead}, "
        "this one begins anew"
    )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def epochs_done(folder: Path) -> int:
    """Whole epochs that the folder's checkpoint spares, as its metrics tell."""
    if not (folder / CHECKPOINT).exists():
        return 0
    try:
        return len((folder / METRICS).read_text().splitlines())
    except (OSError, UnicodeDecodeError):
        return 0


def finish(folder: Path, identity: Identity, version: str) -> None:
    """Note that the run is done, and the version it published."""
    (folder / FINISHED).write_text(json.dumps(asdict(Finished(identity.bundle, version))))


def find_published(folder: Path, identity: Identity, models: Path, category: str) -> Path | None:
    """The bundle that this run published before, if it is whole."""
    try:
        finished = Finished(**json.loads((folder / FINISHED).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # none, or a half-written one
    if finished.identity == identity.bundle:
        with suppress(BundleError):  # deleted or damaged: publish again
            bundle = resolve(models, category, finished.version)
            verify(bundle)
            return bundle
    return None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
