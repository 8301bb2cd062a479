"""The forward pass of a flow whose halves take turns, in few passes over memory.

The same function as the `Compose` that it is given, and the same gradients, to rounding. Beside its
convolutions a step on a CPU consists of passes over large maps, so there are as few of them as can be:

- Halves stay apart from the first step to the last.
- What is constant along a map is folded into weights, which are small and which autograd differentiates: the
  affine after a coupling is in its conditioner's last convolution and in the log-scale, the affine that waits
  for a half to be transformed again leaves but an addition.
- tanh, the slowest function there is, is taken from the logistic function: tanh(u) = 2 sigmoid(2u) - 1.
- Gradients are written out, and each is written where the next convolution reads it.
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
    """Whether a flow reorders channels, then has affine couplings in turn, each with a channel affine."""
    first, *rest = flow.transforms
    couplings, affines = rest[::2], rest[1::2]
    return (
        isinstance(first, Permutation)
        and len(couplings) == len(affines)
        and all(isinstance(affine, ChannelAffine) for affine in affines)
        and all(_fits(coupling, swapped=i % 2 == 1) for i, coupling in enumerate(couplings))
    )


def forward(flow: Compose, x: Tensor) -> tuple[Tensor, Tensor]:
    """What `flow.forward(x)` returns, for a flow that `is_alternating`.

    Under autocast convolutions are computed in its type and all else in that of x.

    Args:
        flow: the flow.
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
    # There is none on the meta device, on which costs are counted.
    if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):
        precision = torch.get_autocast_dtype(x.device.type)
    layers = cast(Sequence[nn.Module], flow.transforms)[1:]
    # Of each half the log-scale and the shift that are still to be applied to it.
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
    """Steps from their tensors, one after the other."""
    width = len(FoldedCoupling._fields) - 1
    return [FoldedCoupling(bound, *folded[width * i : width * (i + 1)]) for i, bound in enumerate(bounds)]


class _Steps(torch.autograd.Function):
    """All steps of a flow: of both halves, and what the steps are folded to, the halves and the sums of s.

    Autograd asks for gradients only where `keep` was true.
    Convolutions are computed in the type of their weights, all else in that of the halves.
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
            # Copied first: the logistic function is slow on rows with gaps between them.
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
        # Autograd computes with gradients here only where it is to differentiate what it computes. Not
        # `once_differentiable`: that is silent where what comes in depends on nothing, as after a log_det.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the steps of a flow of halves have no gradients of gradients (create_graph=True); "
                "`Compose.forward` of the same transform has them"
            )
        bounds: tuple[float, ...] = ctx.bounds
        saved = ctx.saved_tensors  # once: a checkpoint that recomputes gives them no second time
        kept, steps = saved[: 6 * len(bounds)], _regrouped(bounds, saved[6 * len(bounds) :])
        of_halves = list(gradients[:2])
        of_log_det = gradients[2].view(-1, 1, 1, 1)
        of_folded: list[Tensor | None] = []
        # Of what a conditioner gave, (N, 2 C, H, W): t, the second half of it, enters z as it is.
        wanted = _in_second_half(of_halves[1 - (len(bounds) - 1) % 2], None)
        for i in reversed(range(len(bounds))):
            step = steps[i]
            conditions, pointwise, hidden, gate, scale, x = kept[6 * i : 6 * i + 6]
            seen, changed = i % 2, 1 - i % 2
            of_a, of_z = wanted.chunk(2, 1)
            of_x = of_z * scale
            of_s = x + per_channel(step.before)
            doubled = 2 * step.bound
            torch.addcmul(doubled * of_log_det, of_s, of_x, value=doubled, out=of_s)
            torch.ops.aten.sigmoid_backward.grad_input(of_s, gate, grad_input=of_a)
            of_hidden, *of_last = convolve_backward(
                wanted.to(hidden.dtype), hidden, step.last_weight, input_too=True
            )
            torch.ops.aten.threshold_backward.grad_input(of_hidden, hidden, 0, grad_input=of_hidden)
            of_middle: list[Tensor | None] = [None, None]
            if step.middle_weight is not None:
                of_hidden, *of_middle = convolve_backward(
                    of_hidden, pointwise, step.middle_weight, input_too=True
                )
                torch.ops.aten.threshold_backward.grad_input(of_hidden, pointwise, 0, grad_input=of_hidden)
            # The first step's input are features, which seldom want a gradient.
            input_too = i > 0 or ctx.needs_input_grad[seen]
            of_conditions, *of_first = convolve_backward(
                of_hidden, conditions.to(hidden.dtype), step.first_weight, input_too=input_too
            )
            # Before the first step there is nothing.
            of_before = of_x.sum((0, 2, 3)) if i > 0 else None
            of_level = of_s.sum((0, 2, 3)) / doubled
            of_folded = [*of_first, *of_last, of_level, of_before, *of_middle, *of_folded]
            of_halves[changed] = of_x
            if i > 0:
                wanted = _in_second_half(of_halves[seen], of_conditions)
            elif input_too:
                of_halves[seen] = of_halves[seen] + of_conditions
        return (*of_halves, None, None, *of_folded)


def _in_second_half(one: Tensor, other: Tensor | None) -> Tensor:
    """The sum of gradients, (N, C, H, W), as the second half of what has (N, 2 C, H, W)."""
    shape = (len(one), 2 * one.shape[1], *one.shape[2:])
    both = torch.empty(shape, dtype=one.dtype, device=one.device, memory_format=torch.channels_last)
    half = both[:, one.shape[1] :]
    if other is None:
        half.copy_(one)
    else:
        torch.add(one, other, out=half)
    return both
