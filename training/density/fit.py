"""Fitting a flow to samples by maximum likelihood."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from flows import Flow


class DensityFitError(ValueError):
    """The fit cannot go on."""


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    Attributes:
        steps: optimiser steps.
        batch_size: samples per step, drawn without repetition within an epoch.
        learning_rate: at its highest; it falls to 0 along half a cosine.
        weight_decay: of AdamW.
        clip: the gradient's norm is cut to this.
        every: steps between two looks at the validation samples.
        seed: of the order of samples and of everything drawn while fitting.
    """

    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    clip: float = 5.0
    every: int = 100
    seed: int = 0


@dataclass(frozen=True)
class FitPoint:
    """A look at the fit.

    Attributes:
        step: optimiser steps done.
        train: mean negative log-likelihood since the last look, nats per sample.
        validation: the same of the validation samples.
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
    context: Tensor | None = None,
    validation_context: Tensor | None = None,
    on_point: Callable[[FitPoint], None] = lambda _: None,
) -> list[FitPoint]:
    """Fit a flow, and leave it with the weights that did best on the validation samples.

    The flow learns in place, and ends in evaluation mode.

    Args:
        flow: on the device where the samples are.
        train: (N, ...), what the flow takes.
        validation: (M, ...), held out; never test samples.
        settings: how.
        context: (N, ...), a row for each training sample of a conditional flow.
        validation_context: (M, ...).
        on_point: called at every look.

    Returns:
        The looks, in order.

    Raises:
        DensityFitError: the likelihood is no longer finite, or there are no samples.
    """
    if not len(train) or not len(validation):
        raise DensityFitError(
            f"a fit needs training and validation samples; got {len(train)} and {len(validation)}"
        )
    with torch.random.fork_rng(devices=[train.device] if train.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        return _fit(flow, train, validation, settings, context, validation_context, on_point)


def _fit(
    flow: Flow,
    train: Tensor,
    validation: Tensor,
    settings: FitSettings,
    context: Tensor | None,
    validation_context: Tensor | None,
    on_point: Callable[[FitPoint], None],
) -> list[FitPoint]:
    optimiser = torch.optim.AdamW(
        flow.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    points: list[FitPoint] = []
    best, best_weights = math.inf, copy.deepcopy(flow.state_dict())
    order = torch.empty(0, dtype=torch.int64)
    total, count = 0.0, 0
    for step in range(1, settings.steps + 1):
        flow.train()
        if len(order) == 0:
            order = torch.randperm(len(train))
        rows, order = order[: settings.batch_size].to(train.device), order[settings.batch_size :]
        loss = -flow.log_prob(train[rows], None if context is None else context[rows]).mean()
        if not loss.isfinite():
            raise DensityFitError(
                f"the likelihood is no longer finite at step {step}; a lower learning rate helps"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(flow.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        total, count = total + loss.item(), count + 1
        if step % settings.every == 0 or step == settings.steps:
            point = FitPoint(step, total / count, -mean_log_prob(flow, validation, validation_context))
            points.append(point)
            on_point(point)
            total, count = 0.0, 0
            if point.validation < best:
                best, best_weights = point.validation, copy.deepcopy(flow.state_dict())
    if best == math.inf:
        raise DensityFitError(
            "the likelihood of the validation samples was finite at no look; are they sound?"
        )
    flow.load_state_dict(best_weights)
    flow.eval()
    return points


@torch.no_grad()
def mean_log_prob(flow: Flow, samples: Tensor, context: Tensor | None = None, *, batch: int = 1000) -> float:
    """Mean log-likelihood of samples in nats per sample, in evaluation mode."""
    flow.eval()
    values = [
        flow.log_prob(samples[i : i + batch], None if context is None else context[i : i + batch])
        for i in range(0, len(samples), batch)
    ]
    return torch.cat(values).double().mean().item()
