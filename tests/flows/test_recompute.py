"""Recomputing backward passes: equal gradients, less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flows import MLP, Affine, Compose, Coupling, Flow, Halves, Planar
from flows.recipes import glow, real_nvp


def gradients(flow: Flow, x: Tensor, context: Tensor | None) -> list[Tensor]:
    inputs = [x.clone().requires_grad_()] + ([] if context is None else [context.clone().requires_grad_()])
    loss = -flow.log_prob(*inputs).mean()
    found = torch.autograd.grad(loss, [*inputs, *flow.parameters()], allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


@pytest.mark.parametrize("event", [(4,), (1, 4, 4)])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("recipe", [glow, real_nvp])
def test_gradients_equal_those_without_recomputing(
    event: tuple[int, ...], context: int, recipe: Callable[..., Flow]
) -> None:
    torch.manual_seed(0)
    flow = recipe(event, hidden=6, context=context, recompute=True).double().train()
    x = torch.randn(5, *event, dtype=torch.float64)
    rows = torch.randn(5, context, dtype=torch.float64) if context else None
    flow.log_prob(x, rows)  # initialises the activation norms
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    recomputed = gradients(flow, x, rows)
    marked = [m for m in flow.modules() if isinstance(m, Compose) and m.recompute]
    assert marked
    for module in marked:
        module.recompute = False
    for a, b in zip(recomputed, gradients(flow, x, rows), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


class SavedBytes:
    """Counter of the bytes that autograd saves for the backward pass, without the parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = {p.data_ptr() for p in module.parameters()}
        self.bytes: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in self.parameters:
            self.bytes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor


def saved_bytes(steps: int, recompute: bool) -> int:
    """Return the bytes saved by a stack of couplings; all stay alive, so addresses are unique."""
    torch.manual_seed(0)
    layers = []
    for i in range(steps):
        halves = Halves(8, swapped=i % 2 == 1)
        layers.append(Coupling(halves, MLP(4, (32,), 8), Affine()))
    flow = Compose(layers, recompute=recompute)
    counter = SavedBytes(flow)
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t):
        z, log_det = flow.forward(torch.randn(256, 8, requires_grad=True))
    assert z.requires_grad
    assert log_det.requires_grad
    return sum(counter.bytes.values())


def test_memory_does_not_grow_with_the_steps() -> None:
    assert saved_bytes(32, recompute=True) == saved_bytes(4, recompute=True)
    assert saved_bytes(32, recompute=False) > 6 * saved_bytes(4, recompute=False)
    assert saved_bytes(32, recompute=True) < saved_bytes(32, recompute=False) / 20


def test_parameters_changed_before_backward_are_rejected() -> None:
    """The inverse of the changed step would not undo the forward pass."""
    flow = Compose([Planar(2), Planar(2)], recompute=True)
    z, log_det = flow.forward(torch.randn(3, 2))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(z.sum() + log_det.sum())
