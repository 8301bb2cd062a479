"""Fitting a flow to samples by maximum likelihood."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from flows import Compose, Flow, UniformDequantization

# Numbers of samples that are looked at together, without gradients. The networks of a flow may make a hundred
# times as many of them: some 400 MB.
_ELEMENTS = 2**20
_MOST_ROWS = 1000
_CASTS = {torch.float32: "float()", torch.float64: "double()"}


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

    Raises:
        DensityFitError: nothing can be fitted so.
    """

    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    clip: float = 5.0
    every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every"):
            if getattr(self, name) < 1:
                raise DensityFitError(f"a fit needs {name} of at least 1; got {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise DensityFitError(f"a fit needs a learning_rate above 0 and finite; got {self.learning_rate}")


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
        The looks, in order. Where the last of them is not at the last step, the likelihood of the training
        samples was no longer finite; the flow has the best weights from before.

    Raises:
        DensityFitError: the likelihood is no longer finite before it was finite at a look, or at no look,
            there are no samples, or they are of another dtype than the flow (but integers of a flow over
            them), a context has other rows than they, a number in either is not finite, a sample of a flow
            over integers is none of its integers, or the flow refuses a training batch, as `ActNorm` does a
            first one of a single value per channel.
    """
    if not len(train) or not len(validation):
        raise DensityFitError(
            f"a fit needs training and validation samples; got {len(train)} and {len(validation)}"
        )
    over = _dequantization(flow)
    for name, samples, rows in (
        ("training", train, context),
        ("validation", validation, validation_context),
    ):
        # `Flow` sees batches alone, whose rows of a longer context are those of other samples.
        if rows is not None and rows.shape[:1] != samples.shape[:1]:
            raise DensityFitError(
                f"a fit needs a context of {len(samples)} rows for its {name} samples; "
                f"got {tuple(rows.shape)}"
            )
        if over is None or samples.is_floating_point():
            _require_dtype(samples, flow, f"{name} samples")
        require_finite(samples, f"{name} samples")
        if over is not None:
            require_levels(samples, over.levels, f"{name} samples")
        if rows is not None:
            require_finite(rows, f"{name} context")
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
    order = torch.empty(0, dtype=torch.int64, device=train.device)
    # Where there is memory for the gradients of a batch, there is for a look at one.
    rows_at_once = max(settings.batch_size, batch_rows(validation[0].numel()))
    total, count = 0.0, 0
    for step in range(1, settings.steps + 1):
        flow.train()
        if len(order) == 0:
            # Drawn on the CPU, so that every device sees the same order; taken along once an epoch.
            order = torch.randperm(len(train)).to(train.device)
        rows, order = order[: settings.batch_size], order[settings.batch_size :]
        try:
            loss = -flow.log_prob(train[rows], None if context is None else context[rows]).mean()
        except ValueError as error:
            raise DensityFitError(f"the flow refuses a training batch of {len(rows)}: {error}") from error
        value = loss.item()  # the step's one wait for a GPU
        if not math.isfinite(value):
            if best < math.inf:
                break
            raise DensityFitError(
                f"the likelihood is no longer finite at step {step}; a lower learning rate helps"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(flow.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        total, count = total + value, count + 1
        if step % settings.every == 0 or step == settings.steps:
            held_out = -mean_log_prob(flow, validation, validation_context, batch=rows_at_once)
            point = FitPoint(step, total / count, held_out)
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


def _dequantization(flow: Flow) -> UniformDequantization | None:
    """What a flow over integers begins with; None of one over real numbers."""
    # Benches fit models of other libraries, which have a `log_prob` alone.
    first = getattr(flow, "transform", None)
    while isinstance(first, Compose):
        first = first.transforms[0]
    return first if isinstance(first, UniformDequantization) else None


def _require_dtype(samples: Tensor, flow: Flow, name: str) -> None:
    own = next((p.dtype for p in flow.parameters() if p.is_floating_point()), samples.dtype)
    if samples.dtype == own:
        return
    came, wanted = (str(dtype).removeprefix("torch.") for dtype in (samples.dtype, own))
    told = f"samples.{_CASTS.get(own, f'to({own})')}"
    if samples.is_floating_point():
        told += f", or flow.{_CASTS.get(samples.dtype, f'to({samples.dtype})')}"
    raise DensityFitError(f"the {name} are {came} and the flow {wanted}: {told}")


def require_finite(values: Tensor, name: str) -> None:
    """Raise DensityFitError, with the first such row, unless all values are finite; (N, ...)."""
    if (found := _first(values, lambda part: ~part.isfinite())) is not None:
        raise DensityFitError(f"row {found[0]} of the {name} has a value that is not finite")


def require_levels(values: Tensor, levels: int, name: str) -> None:
    """Raise DensityFitError, with the first such value, unless all are integers 0 ... levels - 1; (N, ...).

    A flow over integers takes others too: dequantised images in [0, 1] all lie in the first cell, and
    values beyond the last are no number behind a logit.
    """

    def is_other(part: Tensor) -> Tensor:
        if not part.is_floating_point():
            part = part.float()  # as of truth values, which have no floor
        return (part < 0) | (part > levels - 1) | (part != part.floor())

    if (found := _first(values, is_other)) is not None:
        row, value = found
        raise DensityFitError(
            f"row {row} of the {name} has the value {value:g}; the flow takes integers 0 ... {levels - 1}"
        )


def _first(values: Tensor, is_bad: Callable[[Tensor], Tensor]) -> tuple[int, float] | None:
    """The row and the value of the first bad one of values (N, ...); None where all are good."""
    step = batch_rows(values[:1].numel())  # all at once would take as much memory again
    for begin in range(0, len(values), step):
        part = values[begin : begin + step]
        places = is_bad(part).nonzero()
        if len(places):
            return begin + int(places[0, 0]), part[tuple(places[0])].item()
    return None


def batch_rows(elements: int) -> int:
    """How many samples of so many elements each are looked at together, without gradients."""
    return max(1, min(_MOST_ROWS, _ELEMENTS // max(1, elements)))


@torch.no_grad()
def mean_log_prob(
    flow: Flow, samples: Tensor, context: Tensor | None = None, *, batch: int | None = None
) -> float:
    """Mean log-likelihood of samples in nats per sample, in evaluation mode.

    Args:
        flow: on the device where the samples are.
        samples: (N, ...), N >= 1.
        context: (N, ...), of a conditional flow.
        batch: samples at once; by default as many as `batch_rows` says.

    Raises:
        ValueError: the context has other rows than the samples.
    """
    if context is not None and context.shape[:1] != samples.shape[:1]:
        raise ValueError(
            f"mean_log_prob expected a context of {len(samples)} rows; got {tuple(context.shape)}"
        )
    flow.eval()
    batch = batch or batch_rows(samples[0].numel())
    values = [
        flow.log_prob(samples[i : i + batch], None if context is None else context[i : i + batch])
        for i in range(0, len(samples), batch)
    ]
    return torch.cat(values).double().mean().item()
