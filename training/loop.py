"""Fitting the flows to cached feature maps, with checkpoints that continue to the same bits."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.scorer import Head, channels_last
from training.config import RunConfig
from training.feature_cache import Features

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


class FitError(ValueError):
    """The fit cannot go on."""


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl.

    Attributes:
        epoch: from 1.
        fit_nll: mean over the epoch, in nats per dimension, one value per scale.
        held_out_nll: the same on the calibration pictures after the epoch. For people to see; nothing is
            chosen by it.
        learning_rate: at the end of the epoch.
        seconds: wall time of the epoch.
    """

    epoch: int
    fit_nll: list[float]
    held_out_nll: list[float]
    learning_rate: float
    seconds: float


def fit(
    config: RunConfig,
    features: Features,
    fit_index: NDArray[Any],
    held_out_index: NDArray[Any],
    *,
    device: torch.device,
    folder: Path,
    identity: str,
    resume: bool,
    on_batch: Callable[[int], None],
    on_epoch: Callable[[EpochMetrics], None],
) -> Head:
    """Fit a head to the feature maps of good pictures.

    The order of pictures in an epoch depends on the seed and the epoch's number alone, so a run that was
    killed continues from its last whole epoch to bit-identical weights (same machine, same threads).

    Args:
        config: the run.
        features: per scale (N, C_i, H_i, W_i).
        fit_index: rows to fit.
        held_out_index: rows kept out, whose likelihood is logged.
        device: where to compute.
        folder: checkpoint and metrics are written here after every epoch.
        identity: what must be equal for a checkpoint to be continued.
        resume: continue from the folder's checkpoint where there is one.
        on_batch: called with the number of batches done since the last call.
        on_epoch: called after every epoch.

    Raises:
        FitError: features or the loss are not finite, or the checkpoint is damaged or of another run.
    """
    torch.manual_seed(config.seed)
    channels = [array.shape[1] for array in features]
    head = Head(channels, config.normalisation, config.flow, seed=config.seed)
    channels_last(head.to(device))
    settings = config.fit
    steps = math.ceil(len(fit_index) / settings.batch_size)
    optimiser = torch.optim.Adam(
        head.flow.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs
    )
    history: list[EpochMetrics] = []
    checkpoint = _load(folder / CHECKPOINT, identity, device) if resume else None
    if checkpoint is None:
        try:
            head.normaliser.fit(_batches(features, fit_index, 64, device))
        except ValueError as error:
            raise FitError(
                f"the backbone's features are of no use, are its weights sound? {error}"
            ) from error
    else:
        head.load_state_dict(checkpoint["head"])
        optimiser.load_state_dict(checkpoint["optimiser"])
        schedule.load_state_dict(checkpoint["schedule"])
        history = [EpochMetrics(**row) for row in checkpoint["history"]]
        # The run may have been killed between the checkpoint and its lines.
        _write_metrics(folder / METRICS, history)
        on_batch(steps * len(history))
        for row in history:
            on_epoch(row)

    for epoch in range(len(history) + 1, settings.epochs + 1):
        start = time.monotonic()
        head.train()
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = fit_index[torch.randperm(len(fit_index), generator=generator).numpy()]
        total = torch.zeros(len(channels), dtype=torch.float64)
        for maps in _batches(features, order, settings.batch_size, device):
            losses = torch.stack(head.flow.nll(head.normaliser(maps)))
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.sum())
            torch.nn.utils.clip_grad_norm_(head.flow.parameters(), settings.gradient_clip)
            optimiser.step()
            schedule.step()
            total += losses.detach().double().cpu() * len(maps[0])
            _expect_finite(losses.tolist(), epoch)
            on_batch(1)
        held_out = _held_out(head, features, held_out_index, settings.batch_size, device)
        _expect_finite(held_out, epoch)
        history.append(
            EpochMetrics(
                epoch=epoch,
                fit_nll=(total / len(fit_index)).tolist(),
                held_out_nll=held_out,
                learning_rate=float(schedule.get_last_lr()[0]),
                seconds=time.monotonic() - start,
            )
        )
        _save(
            folder / CHECKPOINT,
            {
                "identity": identity,
                "head": head.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "history": [asdict(row) for row in history],
            },
        )
        _write_metrics(folder / METRICS, history)
        on_epoch(history[-1])
    return head.eval()


def _batches(
    features: Features, index: NDArray[Any], size: int, device: torch.device
) -> Iterator[list[Tensor]]:
    for start in range(0, len(index), size):
        rows = index[start : start + size]
        yield [
            torch.from_numpy(array[rows]).to(device, memory_format=torch.channels_last) for array in features
        ]


@torch.inference_mode()
def _held_out(
    head: Head, features: Features, index: NDArray[Any], size: int, device: torch.device
) -> list[float]:
    head.eval()
    total = torch.zeros(len(features), dtype=torch.float64)
    for maps in _batches(features, index, size, device):
        losses = torch.stack(head.flow.nll(head.normaliser(maps)))
        total += losses.double().cpu() * len(maps[0])
    values: list[float] = (total / len(index)).tolist()
    return values


def _expect_finite(losses: list[float], epoch: int) -> None:
    if not all(map(math.isfinite, losses)):
        raise FitError(
            f"the loss is not finite in epoch {epoch}: {losses}; a smaller fit.learning_rate or "
            "flow.clamp helps"
        )


def _write_metrics(path: Path, history: list[EpochMetrics]) -> None:
    # Whole at every epoch, so that a continued run neither repeats nor loses a line.
    temporary = path.with_suffix(".part")
    temporary.write_text("".join(json.dumps(asdict(row)) + "\n" for row in history))
    temporary.replace(path)


def _save(path: Path, state: dict[str, object]) -> None:
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def _load(path: Path, identity: str, device: torch.device) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        found = state["identity"]
    except Exception as error:  # torch raises a dozen classes for a damaged file
        raise FitError(f"the checkpoint {path} is damaged; train without --resume") from error
    if found != identity:
        raise FitError(
            f"the checkpoint {path} belongs to a run with other settings or other pictures; "
            "train without --resume to start over"
        )
    return state
