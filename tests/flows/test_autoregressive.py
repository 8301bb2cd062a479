"""Masked autoregressive transform."""

import pytest
import torch

from flows import MaskedAutoregressive


def made(features: int, context: int = 0) -> MaskedAutoregressive:
    torch.manual_seed(features)
    flow = MaskedAutoregressive(features, (16, 16), context=context).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return flow


@pytest.mark.parametrize("features", [1, 2, 3, 7])
def test_jacobian_is_lower_triangular_and_full(features: int) -> None:
    flow = made(features)
    x = torch.randn(50, features, dtype=torch.float64)
    each = torch.func.vmap(torch.func.jacrev(lambda v: flow.forward(v[None])[0][0]))(x)
    jacobian = each.abs().sum(0)  # a ReLU may be closed at one point
    assert torch.equal(jacobian, jacobian.tril())
    # All lower entries are nonzero: a mask that hides more would weaken the model.
    assert (jacobian[torch.tril_indices(features, features).unbind()] != 0).all()


@pytest.mark.parametrize(("hidden", "apart"), [((8, 8), 6), ((64, 8), 6), ((8, 13), 10), ((38, 39), 2)])
@pytest.mark.parametrize("context", [0, 2])
def test_narrow_layers_spread_over_all_dimensions(hidden: tuple[int, int], apart: int, context: int) -> None:
    """Narrow layers cannot separate all dimensions, but must leave none out."""
    flow = MaskedAutoregressive(40, hidden, context=context).double()
    for parameter in flow.parameters():
        torch.nn.init.constant_(parameter, 0.01)  # no ReLU is closed, and paths do not cancel
    x, rows = torch.ones(40, dtype=torch.float64), torch.ones(1, context, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda v: flow.forward(v[None], rows)[0][0])(x)
    assert torch.equal(jacobian, jacobian.tril())
    assert (jacobian[-1] != 0).all()
    rows_apart, columns_apart = torch.tril_indices(40, 40, -apart).unbind()
    assert (jacobian[rows_apart, columns_apart] != 0).all()


@pytest.mark.parametrize("features", [1, 4])
def test_context_reaches_every_dimension(features: int) -> None:
    flow = made(features, context=2)
    x = torch.randn(50, features, dtype=torch.float64)
    context = torch.randn(50, 2, dtype=torch.float64)
    slopes = torch.func.jacrev(lambda c: flow.forward(x, c)[0].sum(0))(context)  # (features, 50, 2)
    assert (slopes.abs().sum(1) != 0).all()
    z, _ = flow.forward(x, context)
    torch.testing.assert_close(flow.inverse(z, context)[0], x)
