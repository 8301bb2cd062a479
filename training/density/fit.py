"""Fitting a flow to samples by maximum likelihood."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import pydantic.dataclasses
import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from flows import Compose, Flow, UniformDequantization

# Limits of a batch without gradients. A flow's networks may need a hundred times as many numbers, about
# 400 MB.
_MAX_ELEMENTS = 2**20
_MAX_ROWS = 1000
_WEIGHT_DECAY = 1e-5
_CLIP = 5.0  # maximum norm of the gradient


class DensityFitError(ValueError):
    """The fit cannot start or continue."""


@pydantic.dataclasses.dataclass(frozen=True)
class FitSettings:
    """Settings of a fit.

    Attributes:
        batch_size: samples per step, drawn without repetition within an epoch.
        learning_rate: highest learning rate; it falls to 0 along half a cosine.
        every: steps between two evaluations of the validation samples.
        seed: seed of the order of samples and of everything drawn in the fit.

    Raises:
        ValidationError: a setting is out of range.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 256
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    every: PositiveInt = 100
    seed: int = 0


@dataclass(frozen=True)
class FitPoint:
    """One evaluation during a fit.

    Attributes:
        step: optimiser steps done.
        train: mean negative log-likelihood since the last evaluation, in nats per sample.
        validation: the same for the validation samples.
    """

    step: int
    train: float
    validation: float


def fit(
    flow: Flow,
    train: Tensor,
    validation: Tensor,
    settings: FitSettings,
    *,
    on_point: Callable[[FitPoint], None] = lambda _: None,
) -> list[FitPoint]:
    """Fit a flow in place and keep the weights that are best on the validation samples.

    The flow ends in evaluation mode.

    Args:
        flow: a flow on the device of the samples.
        train: (N, ...), inputs of the flow.
        validation: (M, ...), held out; never test samples.
        on_point: called after every evaluation.

    Returns:
        The evaluations, in order. If the last one is before the last step, the likelihood of the training
        samples was no longer finite; the flow has the best weights until then.

    Raises:
        DensityFitError: the likelihood is finite at no evaluation, there are no samples, they have another
            dtype than the flow (integers are allowed for a flow over integers), a number is not finite, a
            sample is outside the flow's integers, or the flow refuses a batch (`ActNorm` refuses a first
            batch with a single value per channel).
    """
    if not len(train) or not len(validation):
        raise DensityFitError(
            f"a fit needs training and validation samples; got {len(train)} and {len(validation)}"
        )
    over = _dequantization(flow)
    for name, samples in (("training", train), ("validation", validation)):
        if over is None or samples.is_floating_point():
            _require_dtype(samples, flow, f"{name} samples")
        require_finite(samples, f"{name} samples")
        if over is not None:
            require_levels(samples, over.levels, f"{name} samples")
    with torch.random.fork_rng(devices=[train.device] if train.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        return _fit(flow, train, validation, settings, on_point)


def _fit(
    flow: Flow, train: Tensor, validation: Tensor, settings: FitSettings, on_point: Callable[[FitPoint], None]
) -> list[FitPoint]:
    optimiser = torch.optim.AdamW(flow.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    points: list[FitPoint] = []
    best, best_weights = math.inf, copy.deepcopy(flow.state_dict())
    order = torch.empty(0, dtype=torch.int64, device=train.device)
    # A batch that fits with gradients also fits without.
    rows_at_once = max(settings.batch_size, batch_rows(validation[0].numel()))
    total, count = 0.0, 0
    for step in range(1, settings.steps + 1):
        flow.train()
        if len(order) == 0:
            # Drawn on the CPU, so that every device sees the same order; copied once per epoch.
            order = torch.randperm(len(train)).to(train.device)
        rows, order = order[: settings.batch_size], order[settings.batch_size :]
        try:
            loss = -flow.log_prob(train[rows]).mean()
        except ValueError as error:
            raise DensityFitError(f"the flow refuses a training batch of {len(rows)}: {error}") from error
        value = loss.item()  # the only wait for a GPU in a step
        if not math.isfinite(value):
            if best < math.inf:
                break
            raise DensityFitError(
                f"the likelihood is no longer finite at step {step}; a lower learning rate helps"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(flow.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
        total, count = total + value, count + 1
        if step % settings.every == 0 or step == settings.steps:
            held_out = -mean_log_prob(flow, validation, batch=rows_at_once)
            point = FitPoint(step, total / count, held_out)
            points.append(point)
            on_point(point)
            total, count = 0.0, 0
            if point.validation < best:
                best, best_weights = point.validation, copy.deepcopy(flow.state_dict())
    if best == math.inf:
        raise DensityFitError("the likelihood of the validation samples was never finite; check their values")
    flow.load_state_dict(best_weights)
    flow.eval()
    return points


def _dequantization(flow: Flow) -> UniformDequantization | None:
    """Return the first transform of a flow over integers; None for a flow over real numbers."""
    # Benchmarks fit models of other libraries, which only have `log_prob`.
    first = getattr(flow, "transform", None)
    while isinstance(first, Compose):
        first = first.transforms[0]
    return first if isinstance(first, UniformDequantization) else None


def _require_dtype(samples: Tensor, flow: Flow, name: str) -> None:
    own = next((p.dtype for p in flow.parameters() if p.is_floating_point()), samples.dtype)
    if samples.dtype != own:
        raise DensityFitError(f"the {name} are {samples.dtype} and the flow {own}: samples.to({own})")


def require_finite(values: Tensor, name: str) -> None:
    """Raise DensityFitError with the first bad row unless all values (N, ...) are finite."""
    if len(places := (~values.isfinite()).nonzero()):
        raise DensityFitError(f"row {places[0, 0]} of the {name} has a value that is not finite")


def require_levels(values: Tensor, levels: int, name: str) -> None:
    """Raise DensityFitError unless all values (N, ...) are integers 0 ... levels - 1.

    The flow itself accepts other values: dequantised images in [0, 1] all fall into the first cell, and
    values beyond the last give no number after a logit.
    """

    numbers = values if values.is_floating_point() else values.float()  # booleans have no floor
    if len(places := ((numbers < 0) | (numbers > levels - 1) | (numbers != numbers.floor())).nonzero()):
        raise DensityFitError(
            f"row {places[0, 0]} of the {name} has the value {numbers[tuple(places[0])]:g}; the flow takes "
            f"integers 0 ... {levels - 1}"
        )


def batch_rows(elements: int) -> int:
    """Compute the batch size without gradients for samples of `elements` numbers."""
    return max(1, min(_MAX_ROWS, _MAX_ELEMENTS // max(1, elements)))


@torch.no_grad()
def mean_log_prob(flow: Flow, samples: Tensor, *, batch: int | None = None) -> float:
    """Compute the mean log-likelihood in nats per sample, in evaluation mode.

    Args:
        flow: a flow on the device of the samples.
        samples: (N, ...), N >= 1.
        batch: batch size; by default `batch_rows`.
    """
    flow.eval()
    batch = batch or batch_rows(samples[0].numel())
    return torch.cat([flow.log_prob(rows) for rows in torch.split(samples, batch)]).double().mean().item()
