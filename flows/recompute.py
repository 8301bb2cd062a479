"""Backward passes that recompute activations from the output instead of keeping them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flows.actnorm import no_initialisation

Apply = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class InvertibleStep:
    """Invertible step of a chain, in the direction in which the chain runs.

    Attributes:
        apply: the step.
        undo: its inverse.
        module: module with the parameters of both.
    """

    apply: Apply
    undo: Apply
    module: nn.Module


def run(steps: list[InvertibleStep], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a chain of steps; return the output and the sum of the log-determinants, (N,)."""
    total = x.new_zeros(x.shape[0])
    for step in steps:
        x, log_det = step.apply(x, context)
        total = total + log_det
    return x, total


def run_and_recompute(
    steps: list[InvertibleStep], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run a chain of steps like `run`, but let autograd keep the output only.

    Args:
        steps: at least one step, in order.
        x: (N, ...).
        context: context of every step.

    Raises:
        RuntimeError: autocast is on.
    """
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        raise RuntimeError("Compose(recompute=True) would recompute in another precision than autocast's")
    parameters = [p for step in steps for p in step.module.parameters() if p.requires_grad]
    output, log_det = _Recompute.apply(  # type: ignore[no-untyped-call]
        steps, x, context, *parameters
    )
    return output, log_det


class _Recompute(torch.autograd.Function):
    """Chain of steps as one operation of autograd that saves only its output."""

    @staticmethod
    def forward(
        ctx: Any, steps: list[InvertibleStep], x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.steps, ctx.has_context = steps, context is not None
        x, total = run(steps, x, context)
        # Saving the parameters makes autograd raise if they change before the backward pass.
        ctx.save_for_backward(x, *([] if context is None else [context]), *parameters)
        return x, total

    @staticmethod
    @no_initialisation()  # an `Inverse` recomputes by a forward pass
    def backward(ctx: Any, grad: Tensor, grad_log_det: Tensor) -> tuple[Any, ...]:
        # Gradients are enabled here only with create_graph=True.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Compose(recompute=True) has no gradients of gradients (create_graph=True); set its "
                "`recompute` to False"
            )
        y, *rest = ctx.saved_tensors
        context = rest[0].detach() if ctx.has_context else None
        if context is not None and ctx.needs_input_grad[2]:
            context.requires_grad_()
        grad_context: Tensor | None = None
        grads: list[list[Tensor | None]] = []
        for step in reversed(ctx.steps):
            with torch.no_grad():
                x, _ = step.undo(y, context)
            parameters = [p for p in step.module.parameters() if p.requires_grad]
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                # A constant log_det has no gradient.
                pairs = zip(step.apply(x, context), (grad, grad_log_det), strict=True)
                outputs, weights = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
            wanted = [x, *parameters] + ([context] if context is not None and context.requires_grad else [])
            found = torch.autograd.grad(outputs, wanted, weights, allow_unused=True)
            grad = torch.zeros_like(x) if found[0] is None else found[0]
            grads.append(list(found[1 : 1 + len(parameters)]))
            if len(found) > 1 + len(parameters) and found[-1] is not None:
                grad_context = found[-1] if grad_context is None else grad_context + found[-1]
            y = x.detach()
        return None, grad, grad_context, *(g for step_grads in reversed(grads) for g in step_grads)
