"""The masked autoregressive transform."""

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
def test_each_dimension_depends_on_itself_and_those_before_it(features: int) -> None:
    flow = made(features)
    x = torch.randn(50, features, dtype=torch.float64)
    each = torch.func.vmap(torch.func.jacrev(lambda v: flow.forward(v[None])[0][0]))(x)
    jacobian = each.abs().sum(0)  # a ReLU may be closed at one point
    assert torch.equal(jacobian, jacobian.tril())
    # And on all of them: a mask that hides more would be a weaker model.
    assert (jacobian[torch.tril_indices(features, features).unbind()] != 0).all()


@pytest.mark.parametrize(("hidden", "apart"), [((8, 8), 6), ((64, 8), 6), ((8, 13), 10), ((38, 39), 2)])
@pytest.mark.parametrize("context", [0, 2])
def test_layers_narrower_than_the_dimensions_spread_over_all_of_them(
    hidden: tuple[int, int], apart: int, context: int
) -> None:
    """Fewer units than dimensions cannot tell all apart, but none may be left out."""
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
def test_a_context_reaches_every_dimension_the_first_too(features: int) -> None:
    flow = made(features, context=2)
    x = torch.randn(50, features, dtype=torch.float64)
    context = torch.randn(50, 2, dtype=torch.float64)
    slopes = torch.func.jacrev(lambda c: flow.forward(x, c)[0].sum(0))(context)  # (features, 50, 2)
    assert (slopes.abs().sum(1) != 0).all()
    z, _ = flow.forward(x, context)
    torch.testing.assert_close(flow.inverse(z, context)[0], x)
