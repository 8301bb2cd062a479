"""The checkpoint of a fit, from which a stopped run continues."""

from pathlib import Path
from typing import Any

import torch

from flows.fastflow.files.atomic_files import replacing
from training.fit.errors import FitError

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, object]) -> None:
    """Replace the folder's checkpoint.

    Raises:
        FitError: it cannot be written.
    """
    path = folder / CHECKPOINT
    try:
        with replacing(path, sync=False) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # raised by torch for a failed write
        raise FitError(
            f"the checkpoint {path} cannot be written, is the disk full? Free some space: --resume then "
            f"continues from the epoch before ({str(error).splitlines()[0]})"
        ) from error


def load_checkpoint(folder: Path, identity: str, device: torch.device) -> dict[str, Any] | None:
    """Read the folder's checkpoint; None if there is none.

    Args:
        identity: identity of the run; the checkpoint must have the same.

    Raises:
        FitError: the checkpoint is damaged or belongs to another run.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        recorded = state["identity"]
    except Exception as error:  # torch raises a dozen classes for a damaged file
        raise FitError(f"the checkpoint {path} is damaged; train without --resume") from error
    if recorded != identity:
        raise FitError(
            f"the checkpoint {path} belongs to a run with other settings or other images; "
            "train without --resume to start over"
        )
    return state
