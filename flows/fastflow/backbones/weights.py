"""Weights of a backbone, their digest, and the folder that keeps them.

This module does not need timm, whose import takes seconds.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from flows.fastflow.files.atomic_files import remove_abandoned, replacing

State = dict[str, Tensor]

# Suffix of a mark beside a kept file that a run named. Other runs must not use such weights by accident.
NAMED = ".named"
_NAMED_TEXT = (
    "These weights come from a file that a run named with backbone.weights. Models use them; a training uses "
    "them only by that name. Without this file, trainings that name no weights use them.\n"
)


class WeightsError(ValueError):
    """The weights are missing, damaged, or not those of the requested backbone."""


class WeightsNotFoundError(WeightsError):
    """No source has the weights; the message lists all ways to get them."""


@dataclass(frozen=True)
class Weights:
    """Tensors of a timm model under timm's names.

    Attributes:
        name: timm's name of the model.
        source: description of their source.
        sha256: `weights_digest` of the tensors, independent of the file.
        state: the tensors.
        named: True if a run named the file.
    """

    name: str
    source: str
    sha256: str
    state: State
    named: bool = False


def weights_digest(state: State) -> str:
    """Compute the sha256 over names, dtypes, shapes and bytes of the tensors, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_weights(weights: Weights, folder: Path) -> Path:
    """Save weights in a `backbones/` folder under their name and digest. Idempotent and atomic.

    Weights of a file that a run named are marked, unless the folder already has them without a mark. A
    damaged file is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / f"{weights.name}-{weights.sha256[:12]}.safetensors"
    if not weights.named:
        _mark(path).unlink(missing_ok=True)
    existed = path.exists()
    if load_kept_weights(weights.name, folder, weights.sha256) is None:
        remove_abandoned(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync=False) as temporary:
            # Not `save_file`, which reports a full disk as SafetensorError instead of OSError.
            temporary.write_bytes(save({k: v.contiguous() for k, v in weights.state.items()}))
            if weights.named and not existed:
                _mark(path).write_text(_NAMED_TEXT)
    return path


def load_kept_weights(name: str, folder: Path | None, sha256: str) -> Weights | None:
    """Load weights that `save_weights` kept; None if they are missing or damaged.

    The digest covers timm's names and the shapes, so timm need not check them.
    """
    for path in find_kept_files(name, folder, sha256):
        try:
            state = dict(load_file(path))
        except (OSError, SafetensorError):  # `find_weights` reports the error
            continue
        if weights_digest(state) == sha256:
            return Weights(name, str(path), sha256, state)
    return None


def find_kept_files(name: str, folder: Path | None, sha256: str | None) -> list[Path]:
    """Find the kept files of a backbone with a digest; without a digest all unmarked ones."""
    files = _kept(name, folder, sha256)
    return files if sha256 is not None else [file for file in files if not _mark(file).exists()]


def find_marked_files(name: str, folder: Path | None) -> list[Path]:
    """Find the kept files that runs named, which other runs do not use."""
    return [file for file in _kept(name, folder, None) if _mark(file).exists()]


def _mark(path: Path) -> Path:
    return path.with_name(path.name + NAMED)


def _kept(name: str, folder: Path | None, sha256: str | None) -> list[Path]:
    if folder is None:
        return []
    # Compared, not part of the pattern: a manifest may claim any name, such as "../x" or "*".
    begin = f"{name}-{(sha256 or '')[:12]}"
    files = [file for file in folder.glob("*.safetensors") if file.name.startswith(begin)]
    # The length excludes other models whose names begin with this one.
    return sorted(file for file in files if len(file.stem) == len(name) + 13)
