"""Radial flow and its closed inverse."""

import pytest
import torch
from torch.nn.functional import softplus

from flows import Radial


def made(alpha: float, total: float, features: int = 3) -> Radial:
    flow = Radial(features).double()
    torch.nn.init.zeros_(flow.center)
    torch.nn.init.constant_(flow.raw_alpha, alpha)
    torch.nn.init.constant_(flow.raw_sum, total)
    return flow


def test_radial_matches_the_papers_formula() -> None:
    torch.manual_seed(0)
    flow = Radial(3).double()
    torch.nn.init.constant_(flow.raw_sum, 1.3)
    x = torch.randn(4, 3, dtype=torch.float64)
    alpha = softplus(flow.raw_alpha)
    beta = -alpha + softplus(flow.raw_sum)
    r = (x - flow.center).norm(dim=1)
    h = 1 / (alpha + r)
    z, log_det = flow.forward(x)
    torch.testing.assert_close(z, x + beta * h[:, None] * (x - flow.center))
    expected = 2 * torch.log1p(beta * h) + torch.log1p(beta * h - beta * r * h**2)
    torch.testing.assert_close(log_det, expected)


@pytest.mark.parametrize("total", [-700.0, -30.0, 0.0, 50.0])
@pytest.mark.parametrize("alpha", [-700.0, -30.0, 0.0, 50.0])
def test_extreme_parameters_round_trip(alpha: float, total: float) -> None:
    flow = made(alpha, total)
    direction = torch.nn.functional.normalize(torch.randn(1, 3, dtype=torch.float64))
    x = torch.logspace(-8, 8, 33, dtype=torch.float64)[:, None] * direction
    z, log_det = flow.forward(x)
    back, log_det_back = flow.inverse(z)
    # The inverse magnifies an error in the last digit of z by one over the slopes, around and along.
    size, image = x.norm(dim=1), z.norm(dim=1)
    around = image / size
    along = (log_det - 2 * around.log()).exp()
    gain = 1 / torch.minimum(around, along)
    assert ((back - x).norm(dim=1) <= 20 * 2.0**-52 * (gain * image + size)).all()
    torch.testing.assert_close(log_det, -log_det_back, rtol=1e-6, atol=1e-6)


def test_centre_has_finite_values_and_gradients() -> None:
    for raw in (-1.0, 0.0, 2.0):
        flow = made(0.3, raw)
        x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        for apply in (flow.forward, flow.inverse):
            z, log_det = apply(x)
            assert torch.equal(z, x)
            (gradient,) = torch.autograd.grad(z.sum() + log_det.sum(), x)
            assert gradient.isfinite().all()
        [slope] = torch.autograd.grad(flow.forward(x)[0][0, 0], x)
        assert slope[0, 0].item() == pytest.approx((softplus(flow.raw_sum) / softplus(flow.raw_alpha)).item())
