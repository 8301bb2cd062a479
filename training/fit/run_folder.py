"""The folder of a run, named after a digest of everything that decides its weights."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from flows.fastflow.bundle.bundle import BundleError, verify
from flows.fastflow.bundle.models_folder import active_version, delete, resolve, versions
from training.config.load_config import dump_config
from training.config.run_config import RunConfig
from training.fit.checkpoint import CHECKPOINT
from training.fit.epoch_metrics import METRICS
from training.fit.errors import FitError
from training.fit.training_loop import resolve_precision
from training.versions import library_versions

CONFIG = "config.yaml"
DATA_CHECK = "data_check.json"
FINISHED = "finished.json"


@dataclass(frozen=True)
class Identity:
    """Digests that identify a run.

    Attributes:
        fit: digest of everything that decides the fitted weights.
        bundle: digest of everything that decides the bundle.
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
    """Compute the identity of a run.

    Args:
        parts: number of the part in each image; None if every image shows another part.
    """
    # The content of the backbone's weights counts, not their path; the device counts as resolved. Score and
    # rates apply after the fit: another rate needs no other fit.
    after_fit: dict[str, Any] = {"score": True, "calibration": {"target_fpr", "review_fpr", "engines"}}
    irrelevant: dict[str, Any] = {
        "backbone": {"weights"},
        "device": True,
        "feature_cache": True,
        "tensorboard": True,
    }
    settings = config.model_dump(mode="json", exclude=irrelevant | after_fit)
    settings["fit"]["precision"] = resolve_precision(config.fit.precision, device)
    decisive = [settings, hashes, weights_sha256, str(device), library_versions()]
    fitted = _digest(decisive if parts is None else [*decisive, parts])
    return Identity(fitted, _digest([fitted, config.model_dump(mode="json", include=after_fit)]))


def lock_folder(folder: Path, wait_seconds: float = 0) -> AbstractContextManager[object]:
    """Lock the run's folder: two runs in it would mix their checkpoints.

    Raises:
        FitError: another process holds the lock, still after `wait_seconds`.
    """
    lock = FileLock(folder / "lock")
    try:
        return lock.acquire(timeout=wait_seconds)
    except Timeout as error:
        raise FitError(f"another process is at work on this run, in {folder}") from error


def begin_fit(folder: Path, config: RunConfig, *, resume: bool) -> None:
    """Write the settings and remove leftovers of a killed process.

    Without `resume`, also remove the checkpoint and the note of a finished run.
    """
    for leftover in folder.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not resume:
        (folder / FINISHED).unlink(missing_ok=True)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")


def describe_discarded(folder: Path, *, finished: bool) -> str | None:
    """Describe what a run without --resume discards; None if there is nothing."""
    if finished:
        done, instead = "is finished", "take its model"
    elif epochs := epochs_done(folder):
        done, instead = f"has made {epochs} {'epoch' if epochs == 1 else 'epochs'}", "go on from there"
    else:
        return None
    return (
        f"an earlier run with these settings and images {done}; --resume would {instead}, "
        "this one begins anew"
    )


def epochs_done(folder: Path) -> int:
    """Count the epochs of the folder's checkpoint, by its metrics."""
    if not (folder / CHECKPOINT).exists():
        return 0
    try:
        return len((folder / METRICS).read_text().splitlines())
    except (OSError, UnicodeDecodeError):
        return 0


def begin_publication(folder: Path, identity: Identity, models: Path, category: str, version: str) -> None:
    """Record the version that is about to be published.

    One that a killed process published before, without getting further, is deleted: a run publishes once.
    """
    note = _read_note(folder)
    left = None if note is None or note.get("complete", True) else note["version"]
    if left in versions(models, category) and left != active_version(models, category):
        delete(models, category, left)
    _write_note(folder, identity, version, complete=False)


def finish(folder: Path, identity: Identity, version: str) -> None:
    """Record that the run is finished, with the version it published."""
    _write_note(folder, identity, version, complete=True)


def find_published(folder: Path, identity: Identity, models: Path, category: str) -> Path | None:
    """Find the intact bundle that this run published; None if there is none."""
    note = _read_note(folder)
    if note is None or note["identity"] != identity.bundle:
        return None
    # A process may have been killed between activation and note.
    if note.get("complete", True) or note["version"] == active_version(models, category):
        with suppress(BundleError):  # deleted or damaged: publish again
            bundle = resolve(models, category, note["version"])
            verify(bundle)
            return bundle
    return None


def _read_note(folder: Path) -> Any:
    try:
        return json.loads((folder / FINISHED).read_text())
    except (OSError, ValueError):
        return None  # missing or half written


def _write_note(folder: Path, identity: Identity, version: str, *, complete: bool) -> None:
    note = {"identity": identity.bundle, "version": version, "complete": complete}
    (folder / FINISHED).write_text(json.dumps(note))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
