"""Fitting the flows to cached feature maps, with checkpoints that continue to the same bits."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flows.fastflow.engines.engine import supports_bfloat16
from flows.fastflow.files.atomic_files import replace_file, replacing
from flows.fastflow.manifest import Precision
from flows.fastflow.model.head import Head, autocast_for, channels_last
from training.config.run_config import RunConfig, StoppingConfig
from training.data.split import Split
from training.features.cache import Features

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
_STATISTICS_BYTES = 256 * 2**20


class FitError(ValueError):
    """The fit cannot go on."""


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl.

    Attributes:
        epoch: from 1.
        fit_nll: mean over the epoch, in nats per dimension, one value per scale.
        held_out_nll: the same on the calibration images after the epoch. For people to see; nothing is
            chosen by it.
        validation_nll: likewise on the images that `fit.stopping` judges by; None without it.
        learning_rate: at the end of the epoch.
        seconds: wall time of the epoch.
    """

    epoch: int
    fit_nll: list[float]
    held_out_nll: list[float]
    learning_rate: float
    seconds: float
    validation_nll: list[float] | None = None


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

    The order of images in an epoch depends on the seed and the epoch's number alone, so a run that was
    killed continues from its last whole epoch to bit-identical weights (same machine, same threads).

    Args:
        config: the run.
        features: per scale (N, C_i, H_i, W_i).
        rows: of the features: to fit, kept out to calibrate, whose likelihood is logged, and to judge when
            to stop.
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
    training = _Training(config, features, rows, device)
    history: list[EpochMetrics] = []
    checkpoint = _load(folder / CHECKPOINT, identity, device) if resume else None
    if checkpoint is None:
        training.fit_statistics()
    else:
        training.restore(checkpoint)
        history = [EpochMetrics(**row) for row in checkpoint["history"]]
        # The run may have been killed between the checkpoint and its lines.
        _write_metrics(folder / METRICS, history)
        on_batch(training.steps * len(history))
        for row in history:
            on_epoch(row)
    for epoch in range(len(history) + 1, training.epochs + 1):
        if training.stopping.due(len(history)):
            break
        history.append(training.epoch(epoch, on_batch))
        state = {"identity": identity, **training.state(), "history": [asdict(row) for row in history]}
        _save(folder / CHECKPOINT, state)
        _write_metrics(folder / METRICS, history)
        on_epoch(history[-1])
    training.stopping.restore(training.head.flow)
    return training.head.eval()


class _Training:
    """A head with its optimiser and schedule, fitted epoch by epoch; arguments as of `fit`.

    Attributes:
        head: that is fitted.
        stopping: when to stop.
        steps: updates of an epoch.
        epochs: at most.
    """

    def __init__(self, config: RunConfig, features: Features, rows: Split, device: torch.device) -> None:
        settings = config.fit
        self._config, self._features, self._rows, self._device = config, features, rows, device
        sizes = config.gaussian.sizes(features)
        channels = [array.shape[1] for array in features]
        self.head = Head(channels, config.normalisation, config.flow, sizes, seed=config.seed)
        channels_last(self.head.to(device))
        self.steps = settings.batches_of(len(rows.fit))
        self.epochs = settings.epochs_for(len(rows.fit))
        self.stopping = _Stopping(settings.stopping)
        self._precision = resolve_precision(settings.precision, device)
        # Fused: one pass over each weight instead of a dozen operations on it.
        self._optimiser = torch.optim.Adam(
            self.head.flow.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._schedule: torch.optim.lr_scheduler.LRScheduler
        # Of a single update it is its end, nearly 0.
        if settings.schedule == "one-cycle" and self.steps * self.epochs > 1:
            self._schedule = torch.optim.lr_scheduler.OneCycleLR(
                self._optimiser, settings.learning_rate, total_steps=self.steps * self.epochs
            )
        else:
            self._schedule = torch.optim.lr_scheduler.ConstantLR(self._optimiser, factor=1.0)

    def fit_statistics(self) -> None:
        """Fit all but the flows.

        Raises:
            FitError: a feature is not finite.
        """
        features, rows, device = self._features, self._rows.fit, self._device
        try:
            self.head.fit_statistics(lambda: _batches(features, rows, _statistics_batch(features), device))
        except ValueError as error:
            raise FitError(
                f"the backbone's features are of no use, are its weights sound? {error}"
            ) from error

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "head": self.head.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "best": self.stopping.best,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.head.load_state_dict(state["head"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.stopping.best = state["best"]

    def epoch(self, epoch: int, on_batch: Callable[[int], None]) -> EpochMetrics:
        """Go through the images once; `epoch` counts from 1.

        Raises:
            FitError: a loss is not finite.
        """
        settings, rows, seed = self._config.fit, self._rows, self._config.seed
        start = time.monotonic()
        self.head.train()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = rows.fit[torch.randperm(len(rows.fit), generator=generator).numpy()]
        # Of the epoch's number as well: a run that is resumed goes on with the same noise.
        noise = torch.Generator(self._device).manual_seed(seed * 1_000_003 + epoch)
        total = torch.zeros(len(self._features), dtype=torch.float64)
        for maps in _batches(self._features, order, settings.batch_size, self._device):
            found = self._update(_noisy(self.head.normaliser(maps), settings.noise, noise))
            _require_finite(found.tolist(), epoch)
            total += found * len(maps[0])
            on_batch(1)
        held_out = self._judge(rows.calibration, epoch)
        validation = None
        if settings.stopping is not None:
            validation = self._judge(rows.validation, epoch)
            self.stopping.see(epoch, sum(validation), self.head.flow)
        return EpochMetrics(
            epoch=epoch,
            fit_nll=(total / len(rows.fit)).tolist(),
            held_out_nll=held_out,
            learning_rate=float(self._schedule.get_last_lr()[0]),
            seconds=time.monotonic() - start,
            validation_nll=validation,
        )

    def _update(self, inputs: Sequence[Tensor]) -> Tensor:
        """Make one update; the loss of each scale, (S,) float64."""
        with autocast_for(self._precision, self._device):
            losses = torch.stack(self.head.flow.nll(inputs))
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.sum())
        torch.nn.utils.clip_grad_norm_(self.head.flow.parameters(), self._config.fit.gradient_clip)
        self._optimiser.step()
        self._schedule.step()
        return losses.detach().double().cpu()  # once: to fetch them is to wait for the GPU

    @torch.inference_mode()
    def _judge(self, index: NDArray[Any], epoch: int) -> list[float]:
        """The negative log-likelihood of images that are not fitted, of each scale."""
        self.head.eval()
        total = torch.zeros(len(self._features), dtype=torch.float64)
        for maps in _batches(self._features, index, self._config.fit.batch_size, self._device):
            losses = torch.stack(self.head.flow.nll(self.head.normaliser(maps)))
            total += losses.double().cpu() * len(maps[0])
        values: list[float] = (total / len(index)).tolist()
        _require_finite(values, epoch)
        return values


class _Stopping:
    """Watches the likelihood of images kept apart for it, and keeps the weights of the best epoch."""

    def __init__(self, settings: StoppingConfig | None) -> None:
        self._settings = settings
        self.best: dict[str, Any] = {}  # as a checkpoint holds it; empty before the first epoch

    def due(self, epochs: int) -> bool:
        """Whether after so many epochs the best one is too long ago."""
        if self._settings is None or not self.best:
            return False
        return epochs - int(self.best["epoch"]) >= self._settings.patience

    def see(self, epoch: int, nll: float, flow: nn.Module) -> None:
        """Take note of an epoch."""
        if not self.best or nll < self.best["nll"]:
            weights = {name: value.detach().clone() for name, value in flow.state_dict().items()}
            self.best = {"epoch": epoch, "nll": nll, "weights": weights}

    def restore(self, flow: nn.Module) -> None:
        """Give the flow the weights of the best epoch, where epochs were watched."""
        if self.best:
            flow.load_state_dict(self.best["weights"])


def _noisy(maps: Sequence[Tensor], deviation: float, generator: torch.Generator) -> list[Tensor]:
    """Normalised features with normal noise, where there shall be any."""
    if deviation == 0:
        return list(maps)
    # Drawn in the layout that the maps have, or adding would put them into another.
    return [x.add(torch.empty_like(x).normal_(0, deviation, generator=generator)) for x in maps]


def resolve_precision(precision: Literal["auto", Precision], device: torch.device) -> Precision:
    """What `fit.precision` comes to on a device."""
    if precision != "auto":
        return precision
    return "bfloat16" if supports_bfloat16(device) else "float32"


def _statistics_batch(features: Features) -> int:
    """How many images are looked at together for statistics: no more bytes than a GPU can spare."""
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


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a fit, as `fit` wrote them: mappings with the fields of `EpochMetrics`."""
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def final_metrics(folder: Path) -> dict[str, float]:
    """What a fit ended with, means over scales, at the epoch whose weights it gave.

    Args:
        folder: of the run, after `fit`.
    """
    row = row_of_final_weights(read_metrics(folder))
    return {name: float(np.mean(row[name])) for name in ("fit_nll", "held_out_nll")}


def row_of_final_weights(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of a fit's epochs that whose weights it gave: the one that `fit.stopping` chose, otherwise the last."""
    if rows[-1]["validation_nll"] is None:
        return rows[-1]
    return min(rows, key=lambda row: sum(row["validation_nll"]))


def _write_metrics(path: Path, history: list[EpochMetrics]) -> None:
    # Whole at every epoch, so that a continued run neither repeats nor loses a line.
    text = "".join(json.dumps(asdict(row)) + "\n" for row in history)
    replace_file(path, text.encode(), sync=False)


def _save(path: Path, state: dict[str, object]) -> None:
    try:
        with replacing(path, sync=False) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # what torch makes of a write that fails
        raise FitError(
            f"the checkpoint {path} cannot be written, is the disk full? With room for it, --resume "
            f"continues from the epoch before ({str(error).splitlines()[0]})"
        ) from error


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
            f"the checkpoint {path} belongs to a run with other settings or other images; "
            "train without --resume to start over"
        )
    return state
