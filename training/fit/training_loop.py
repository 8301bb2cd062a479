"""The training loop: fit the flows to cached feature maps."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.engines.engine import supports_bfloat16
from flows.fastflow.manifest import Precision
from flows.fastflow.model.cells import cells_per_side
from flows.fastflow.model.head import Head, autocast_for, channels_last
from training.config.run_config import RunConfig
from training.data.split import Split
from training.features.cache import Features
from training.fit.checkpoint import load_checkpoint, save_checkpoint
from training.fit.early_stopping import EarlyStopping
from training.fit.epoch_metrics import EpochMetrics, write_metrics
from training.fit.errors import FitError

_STATISTICS_BYTES = 256 * 2**20


def fit(
    config: RunConfig,
    features: Features,
    rows: Split,
    *,
    device: torch.device,
    folder: Path,
    identity: str,
    resume: bool,
    on_batch: Callable[[int], None],
    on_epoch: Callable[[EpochMetrics], None],
) -> Head:
    """Fit a head to the feature maps of good images.

    The order of images in an epoch depends only on the seed and the number of the epoch. A killed run
    therefore continues from its last whole epoch to bit-identical weights (same machine, same threads).

    Args:
        features: per scale (N, C_i, H_i, W_i).
        rows: rows of the features to fit, to calibrate with (their likelihood is logged) and to validate.
        folder: receives checkpoint and metrics after every epoch.
        identity: a checkpoint is continued if it has the same.
        resume: continue from the folder's checkpoint, if there is one.
        on_batch: called with the number of batches done since the last call.
        on_epoch: called after every epoch.

    Raises:
        FitError: features or the loss are not finite, or the checkpoint is damaged or of another run.
    """
    torch.manual_seed(config.seed)
    trainer = _Trainer(config, features, rows, device)
    history: list[EpochMetrics] = []
    checkpoint = load_checkpoint(folder, identity, device) if resume else None
    if checkpoint is None:
        fit_statistics(trainer.head, features, rows.fit, device)
    else:
        trainer.restore(checkpoint)
        history = [EpochMetrics(**row) for row in checkpoint["history"]]
        # The run may have been killed between writing the checkpoint and its metrics.
        write_metrics(folder, history)
        on_batch(trainer.steps * len(history))
        for row in history:
            on_epoch(row)
    for epoch in range(len(history) + 1, trainer.epochs + 1):
        if trainer.stopping.is_due(len(history)):
            break
        history.append(trainer.epoch(epoch, on_batch))
        state = {"identity": identity, **trainer.state(), "history": [asdict(row) for row in history]}
        save_checkpoint(folder, state)
        write_metrics(folder, history)
        on_epoch(history[-1])
    trainer.stopping.restore(trainer.head.flow)
    return trainer.head.eval()


def build_head(config: RunConfig, features: Features, device: torch.device) -> Head:
    """Build the head of a run on a device, with random flows.

    Args:
        features: per scale (N, C_i, H_i, W_i).
    """
    sizes = config.gaussian.sizes(features)
    channels = [array.shape[1] for array in features]
    # Of the second coarsest scale, or the only one.
    cells = None if sizes is None else cells_per_side(channels[-2:][0])
    head = Head(channels, config.normalisation, config.flow, sizes, cells, seed=config.seed)
    return channels_last(head.to(device))


def fit_statistics(head: Head, features: Features, rows: NDArray[Any], device: torch.device) -> None:
    """Fit the normaliser and the Gaussians of a head.

    Args:
        features: per scale (N, C_i, H_i, W_i).

    Raises:
        FitError: a feature is not finite.
    """
    try:
        head.fit_statistics(lambda: _batches(features, rows, _statistics_batch(features), device))
    except ValueError as error:
        raise FitError(f"the backbone's features cannot be used, are its weights sound? {error}") from error


class _Trainer:
    """A head with its optimiser and schedule, fitted epoch by epoch; arguments as of `fit`.

    Attributes:
        steps: updates per epoch.
        epochs: maximum number of epochs.
    """

    def __init__(self, config: RunConfig, features: Features, rows: Split, device: torch.device) -> None:
        settings = config.fit
        self._config, self._features, self._rows, self._device = config, features, rows, device
        self.head = build_head(config, features, device)
        self.steps = settings.batches_of(len(rows.fit))
        self.epochs = settings.epochs_for(len(rows.fit))
        self.stopping = EarlyStopping(settings.stopping)
        self._precision = resolve_precision(settings.precision, device)
        # Fused: one pass over each weight instead of a dozen operations on it.
        self._optimiser = torch.optim.Adam(
            self.head.flow.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._schedule: torch.optim.lr_scheduler.LRScheduler
        # With a single update one-cycle would use its last rate, nearly 0.
        if settings.schedule == "one-cycle" and self.steps * self.epochs > 1:
            self._schedule = torch.optim.lr_scheduler.OneCycleLR(
                self._optimiser, settings.learning_rate, total_steps=self.steps * self.epochs
            )
        else:
            self._schedule = torch.optim.lr_scheduler.ConstantLR(self._optimiser, factor=1.0)

    def state(self) -> dict[str, Any]:
        """Collect what a checkpoint holds."""
        return {
            "head": self.head.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "best": self.stopping.best,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a result of `state`."""
        self.head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.stopping.best = state["best"]

    def epoch(self, epoch: int, on_batch: Callable[[int], None]) -> EpochMetrics:
        """Fit one epoch; `epoch` counts from 1.

        Raises:
            FitError: a loss is not finite.
        """
        settings, rows, seed = self._config.fit, self._rows, self._config.seed
        start = time.monotonic()
        self.head.train()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = rows.fit[torch.randperm(len(rows.fit), generator=generator).numpy()]
        # Seeded by the epoch too: a resumed run draws the same noise.
        noise = torch.Generator(self._device).manual_seed(seed * 1_000_003 + epoch)
        total = torch.zeros(len(self._features), dtype=torch.float64)
        for maps in _batches(self._features, order, settings.images_per_update, self._device):
            losses = self._update(_with_noise(self.head.normaliser(maps), settings.noise, noise))
            _require_finite(losses.tolist(), epoch)
            total += losses * len(maps[0])
            on_batch(1)
        held_out = self._mean_nll(rows.calibration, epoch)
        validation = None
        if settings.stopping is not None:
            validation = self._mean_nll(rows.validation, epoch)
            self.stopping.observe(epoch, sum(validation), self.head.flow)
        return EpochMetrics(
            epoch=epoch,
            fit_nll=(total / len(rows.fit)).tolist(),
            held_out_nll=held_out,
            learning_rate=float(self._schedule.get_last_lr()[0]),
            seconds=time.monotonic() - start,
            validation_nll=validation,
        )

    def _update(self, inputs: Sequence[Tensor]) -> Tensor:
        """Make one update and return the loss of each scale, (S,) float64."""
        with autocast_for(self._precision, self._device):
            losses = torch.stack(self.head.flow.nll(inputs))
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.sum())
        torch.nn.utils.clip_grad_norm_(self.head.flow.parameters(), self._config.fit.gradient_clip)
        self._optimiser.step()
        self._schedule.step()
        return losses.detach().double().cpu()  # one transfer: each waits for the GPU

    @torch.inference_mode()
    def _mean_nll(self, index: NDArray[Any], epoch: int) -> list[float]:
        """Average the negative log-likelihood of images outside the fit, per scale."""
        self.head.eval()
        total = torch.zeros(len(self._features), dtype=torch.float64)
        for maps in _batches(self._features, index, self._config.fit.images_per_update, self._device):
            losses = torch.stack(self.head.flow.nll(self.head.normaliser(maps)))
            total += losses.double().cpu() * len(maps[0])
        values: list[float] = (total / len(index)).tolist()
        _require_finite(values, epoch)
        return values


def _with_noise(maps: Sequence[Tensor], deviation: float, generator: torch.Generator) -> list[Tensor]:
    if deviation == 0:
        return list(maps)
    # `empty_like` keeps the memory layout of the maps; the sum would otherwise have another one.
    return [x.add(torch.empty_like(x).normal_(0, deviation, generator=generator)) for x in maps]


def resolve_precision(precision: Literal["auto", Precision], device: torch.device) -> Precision:
    if precision != "auto":
        return precision
    return "bfloat16" if supports_bfloat16(device) else "float32"


def _statistics_batch(features: Features) -> int:
    """Limit the images per batch of statistics to the memory that a GPU can spare."""
    nbytes = sum(int(array[0].nbytes) for array in features)
    return max(1, min(64, _STATISTICS_BYTES // nbytes))


def _batches(
    features: Features, index: NDArray[Any], size: int, device: torch.device
) -> Iterator[list[Tensor]]:
    for start in range(0, len(index), size):
        rows = index[start : start + size]
        yield [
            torch.from_numpy(array[rows]).to(device, memory_format=torch.channels_last) for array in features
        ]


def _require_finite(losses: list[float], epoch: int) -> None:
    if not all(map(math.isfinite, losses)):
        raise FitError(
            f"the loss is not finite in epoch {epoch}: {losses}; a smaller fit.learning_rate or "
            "flow.clamp helps"
        )
