"""Backward passes that recompute what they need from the output, instead of having kept it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flows.actnorm import no_initialisation

Apply = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    """One invertible step of a chain, in the direction in which the chain is run.

    Attributes:
        apply: the step.
        undo: its inverse.
        module: holds the parameters that both depend on.
    """

    apply: Apply
    undo: Apply
    module: nn.Module


def run(steps: list[Step], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a chain of steps: the output, and the sum of their log-determinants, (N,)."""
    total = x.new_zeros(x.shape[0])
    for step in steps:
        x, log_det = step.apply(x, context)
        total = total + log_det
    return x, total


def run_and_recompute(steps: list[Step], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a chain of steps so that autograd keeps its output alone.

    Args:
        steps: at least one, in order.
        x: (N, ...).
        context: handed to every step.

    Returns:
        What `run` returns.

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
    """The chain as one operation: only its output is saved."""

    @staticmethod
    def forward(
        ctx: Any, steps: list[Step], x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.steps, ctx.has_context = steps, context is not None
        x, total = run(steps, x, context)
        # The parameters too, though nothing reads them: autograd then refuses if they changed in between.
        ctx.save_for_backward(x, *([] if context is None else [context]), *parameters)
        return x, total

    @staticmethod
    @no_initialisation()  # the inverse leaves an `ActNorm` as it is, and what undoes it is a forward pass
    def backward(ctx: Any, grad: Tensor, grad_log_det: Tensor) -> tuple[Any, ...]:
        # Autograd computes with gradients here only where it is to differentiate what it computes.
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
                # A log_det that depends on nothing has no gradient to give.
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
