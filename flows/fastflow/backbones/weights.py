"""A backbone's weights, the folder they are kept in, and how two machines know they hold the same.

Nothing here needs timm, which takes seconds to import.
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

# Beside a kept file: a run named it. Runs that name none would else take one category's for another.
NAMED = ".named"
_NAMED_TEXT = (
    "These weights come from a file that a run named by backbone.weights. They serve; a training takes them "
    "only by that name. Without this file, trainings that name no weights take them.\n"
)


class WeightsError(ValueError):
    """Weights that are missing, damaged, or not those of the backbone asked for."""


class WeightsNotFoundError(WeightsError):
    """No source has the weights; the message names every way to get them."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a timm model under timm's names.

    Attributes:
        name: timm's name of the model.
        source: where they were found, for people.
        sha256: `weights_digest` of the tensors: the same for the same weights, whatever file they lie in.
        state: the tensors.
        named: whether a run named the file.
    """

    name: str
    source: str
    sha256: str
    state: State
    named: bool = False


def weights_digest(state: State) -> str:
    """sha256 over names, dtypes, shapes and bytes of the tensors, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_weights(weights: Weights, folder: Path) -> Path:
    """Keep weights in a `backbones/` folder under their name and digest. Idempotent and atomic.

    Those of a file that a run named are marked, unless they are there without a mark already. What is there
    and damaged is replaced.

    Raises:
        OSError: they cannot be written.
    """
    path = folder / f"{weights.name}-{weights.sha256[:12]}.safetensors"
    if not weights.named:
        _mark(path).unlink(missing_ok=True)
    there = path.exists()
    if load_kept_weights(weights.name, folder, weights.sha256) is None:
        remove_abandoned(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync=False) as temporary:
            # Not `save_file`: of a full disk it tells by a SafetensorError, not an OSError.
            temporary.write_bytes(save({k: v.contiguous() for k, v in weights.state.items()}))
            if weights.named and not there:
                _mark(path).write_text(_NAMED_TEXT)
    return path


def load_kept_weights(name: str, folder: Path | None, sha256: str) -> Weights | None:
    """What `save_weights` kept, if it is there to the last bit; None otherwise, whatever is wrong with it.

    The digest covers timm's names and the shapes, so whether they are that model's need not be asked of timm.
    """
    for path in find_kept_files(name, folder, sha256):
        try:
            state = dict(load_file(path))
        except (OSError, SafetensorError):  # `find_weights` says what is wrong with it
            continue
        if weights_digest(state) == sha256:
            return Weights(name, str(path), sha256, state)
    return None


def find_kept_files(name: str, folder: Path | None, sha256: str | None) -> list[Path]:
    """Where `save_weights` kept a backbone's weights: of a digest, or of any, but without those marked."""
    files = _kept(name, folder, sha256)
    return files if sha256 is not None else [file for file in files if not _mark(file).exists()]


def find_marked_files(name: str, folder: Path | None) -> list[Path]:
    """Where it kept such as runs named: other runs do not take them."""
    return [file for file in _kept(name, folder, None) if _mark(file).exists()]


def _mark(path: Path) -> Path:
    return path.with_name(path.name + NAMED)


def _kept(name: str, folder: Path | None, sha256: str | None) -> list[Path]:
    if folder is None:
        return []
    # Compared and not put into the pattern: a manifest may claim any name, such as "../x" or "*".
    begin = f"{name}-{(sha256 or '')[:12]}"
    files = [file for file in folder.glob("*.safetensors") if file.name.startswith(begin)]
    # Nor is it another model whose name merely begins so.
    return sorted(file for file in files if len(file.stem) == len(name) + 13)
