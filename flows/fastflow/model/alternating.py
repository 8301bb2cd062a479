"""Forward pass of a flow with alternating halves, in few passes over memory.

Values and gradients equal those of `Compose.forward` up to rounding. Besides convolutions, a step on a CPU
consists of passes over large maps. This module reduces their number:

- Halves stay separate from the first step to the last.
- Values that are constant along a map are folded into small weights, which autograd differentiates. The
  affine after a coupling moves into its conditioner's last convolution and into the log-scale. The affine
  of a half that is transformed later leaves only an addition.
- tanh, the slowest function, is computed from the logistic function: tanh(u) = 2 sigmoid(2u) - 1.
- Gradients are computed explicitly, each in the memory that the next convolution reads.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows import (
    Affine,
    ChannelAffine,
    Compose,
    ConvNet,
    Coupling,
    DepthwiseNet,
    Halves,
    Permutation,
    SoftClamp,
)
from flows.fastflow.model.convolution import convolve, convolve_backward
from flows.fastflow.model.folding import FoldedCoupling, fold_coupling, per_channel
from flows.transform import require_images


def is_alternating(flow: Compose) -> bool:
    """Check that a flow is a permutation, then couplings of alternating halves with channel affines."""
    first, *rest = flow.transforms
    couplings, affines = rest[::2], rest[1::2]
    return (
        isinstance(first, Permutation)
        and len(couplings) == len(affines)
        and all(isinstance(affine, ChannelAffine) for affine in affines)
        and all(_fits(coupling, swapped=i % 2 == 1) for i, coupling in enumerate(couplings))
    )


def forward(flow: Compose, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `flow.forward(x)` of a flow that `is_alternating`.

    Under autocast, convolutions use its dtype and everything else the dtype of x.

    Args:
        x: (N, C, H, W).

    Returns:
        The latents (N, C, H, W), and the log-determinants (N,).

    Raises:
        ValueError: x has another shape.
    """
    permutation = cast(Permutation, flow.transforms[0])
    require_images(x, len(permutation.index), "FastFlow")
    first = (len(permutation.index) + 1) // 2
    halves = [x[:, permutation.index[:first]], x[:, permutation.index[first:]]]
    precision = x.dtype
    # The meta device, which counts costs, has no autocast.
    if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):
        precision = torch.get_autocast_dtype(x.device.type)
    layers = cast(Sequence[nn.Module], flow.transforms)[1:]
    # Log-scale and shift that are not yet applied to each half.
    pending: list[tuple[Tensor, Tensor] | None] = [None, None]
    steps: list[FoldedCoupling] = []
    for i, (coupling, affine) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
        affine = cast(ChannelAffine, affine)
        own = [
            (affine.log_scale[:first], affine.shift[:first]),
            (affine.log_scale[first:], affine.shift[first:]),
        ]
        seen, changed = i % 2, 1 - i % 2
        steps.append(fold_coupling(cast(Coupling, coupling), own[changed], pending[changed], precision))
        pending[changed], pending[seen] = None, own[seen]
    bounds = tuple(step.bound for step in steps)
    folded = [tensor for step in steps for tensor in step[1:]]
    *halves, log_det = cast(
        tuple[Tensor, ...],
        _Steps.apply(*halves, bounds, torch.is_grad_enabled(), *folded),  # type: ignore[no-untyped-call]
    )
    for half, left in enumerate(pending):
        if left is not None:
            log_scale, shift = left
            halves[half] = torch.addcmul(per_channel(shift), halves[half], per_channel(log_scale.exp()))
            log_det = log_det + x.shape[2:].numel() * log_scale.sum()
    return torch.cat(halves, 1), log_det


def _fits(coupling: nn.Module, *, swapped: bool) -> bool:
    return (
        isinstance(coupling, Coupling)
        and isinstance(coupling.partition, Halves)
        and coupling.partition.swapped == swapped
        and isinstance(coupling.law, Affine)
        and isinstance(coupling.law.clamp, SoftClamp)
        and isinstance(coupling.conditioner, ConvNet | DepthwiseNet)
    )


def _regrouped(bounds: Sequence[float], folded: Sequence[Any]) -> list[FoldedCoupling]:
    """Group the tensors of all steps by step."""
    width = len(FoldedCoupling._fields) - 1
    return [FoldedCoupling(bound, *folded[width * i : width * (i + 1)]) for i, bound in enumerate(bounds)]


class _Steps(torch.autograd.Function):
    """All steps of a flow, from both halves and the folded steps to the halves and the sums of s.

    Autograd needs gradients only if `keep` was true. Convolutions use the dtype of their weights, everything
    else that of the halves.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, bounds: tuple[float, ...], keep: bool, *folded: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        halves = [first, second]
        kept: list[Tensor] = []
        log_det = first.new_zeros(len(first))
        for i, step in enumerate(_regrouped(bounds, folded)):
            seen, changed = i % 2, 1 - i % 2
            hidden = convolve(halves[seen].to(step.first_weight.dtype), step.first_weight, step.first_bias)
            hidden.relu_()
            pointwise = hidden
            if step.middle_weight is not None and step.middle_bias is not None:
                hidden = convolve(hidden, step.middle_weight, step.middle_bias).relu_()
            a, t = convolve(hidden, step.last_weight, step.last_bias).to(first.dtype).chunk(2, 1)
            # Copied first: the logistic function is slow on strided rows.
            gate = torch.empty_like(t, memory_format=torch.channels_last).copy_(a).sigmoid_()
            scale = torch.add(per_channel(step.level), gate, alpha=2 * step.bound)
            log_det += scale.sum((1, 2, 3))
            scale.exp_()
            x = halves[changed]
            halves[changed] = torch.addcmul(t, x + per_channel(step.before), scale)
            if keep:
                kept += [halves[seen], pointwise, hidden, gate, scale, x]
        if keep:
            ctx.save_for_backward(*kept, *folded)
        ctx.bounds = bounds
        return halves[0], halves[1], log_det

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients are enabled here only for create_graph=True. `once_differentiable` would not raise if the
        # incoming gradient depends on nothing, such as that of a log_det.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the steps of an alternating flow have no second derivatives (create_graph=True); "
                "use `Compose.forward` of the same transform"
            )
        bounds: tuple[float, ...] = ctx.bounds
        saved = ctx.saved_tensors  # read once: a checkpoint that recomputes returns them only once
        kept, steps = saved[: 6 * len(bounds)], _regrouped(bounds, saved[6 * len(bounds) :])
        grad_halves = list(gradients[:2])
        grad_log_det = gradients[2].view(-1, 1, 1, 1)
        grad_folded: list[Tensor | None] = []
        # Gradient of the conditioner's output (a, t), (N, 2 C, H, W). The part of t equals that of z.
        grad_output = _in_second_half(grad_halves[1 - (len(bounds) - 1) % 2], None)
        for i in reversed(range(len(bounds))):
            step = steps[i]
            conditions, pointwise, hidden, gate, scale, x = kept[6 * i : 6 * i + 6]
            seen, changed = i % 2, 1 - i % 2
            grad_a, grad_z = grad_output.chunk(2, 1)
            grad_x = grad_z * scale
            grad_s = x + per_channel(step.before)
            doubled = 2 * step.bound
            torch.addcmul(doubled * grad_log_det, grad_s, grad_x, value=doubled, out=grad_s)
            torch.ops.aten.sigmoid_backward.grad_input(grad_s, gate, grad_input=grad_a)
            grad_hidden, *grad_last = convolve_backward(
                grad_output.to(hidden.dtype), hidden, step.last_weight, with_input=True
            )
            torch.ops.aten.threshold_backward.grad_input(grad_hidden, hidden, 0, grad_input=grad_hidden)
            grad_middle: list[Tensor | None] = [None, None]
            if step.middle_weight is not None:
                grad_hidden, *grad_middle = convolve_backward(
                    grad_hidden, pointwise, step.middle_weight, with_input=True
                )
                torch.ops.aten.threshold_backward.grad_input(
                    grad_hidden, pointwise, 0, grad_input=grad_hidden
                )
            # The first step's inputs are features, which seldom need a gradient.
            with_input = i > 0 or ctx.needs_input_grad[seen]
            grad_conditions, *grad_first = convolve_backward(
                grad_hidden, conditions.to(hidden.dtype), step.first_weight, with_input=with_input
            )
            # The first step has no affine before it.
            grad_before = grad_x.sum((0, 2, 3)) if i > 0 else None
            grad_level = grad_s.sum((0, 2, 3)) / doubled
            grad_folded = [*grad_first, *grad_last, grad_level, grad_before, *grad_middle, *grad_folded]
            grad_halves[changed] = grad_x
            if i > 0:
                grad_output = _in_second_half(grad_halves[seen], grad_conditions)
            elif with_input:
                grad_halves[seen] = grad_halves[seen] + grad_conditions
        return (*grad_halves, None, None, *grad_folded)


def _in_second_half(x: Tensor, y: Tensor | None) -> Tensor:
    """Write x + y, (N, C, H, W), to the second half of a tensor (N, 2 C, H, W)."""
    shape = (len(x), 2 * x.shape[1], *x.shape[2:])
    both = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    half = both[:, x.shape[1] :]
    if y is None:
        half.copy_(x)
    else:
        torch.add(x, y, out=half)
    return both
