"""Rational-quadratic splines."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import RationalQuadraticSpline
from flows.spline import rational_quadratic

LAW = RationalQuadraticSpline(bins=5, bound=3.0)


def parameters(seed: int, n: int, spread: float = 2.0) -> torch.Tensor:
    """Draw parameters, (n, 14, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, LAW.per_element, 1, dtype=torch.float64, generator=generator)


def test_parameters_of_0_give_the_identity() -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    z, log_derivative = LAW.forward(x, torch.zeros(81, LAW.per_element, 1, dtype=torch.float64))
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(log_derivative, torch.zeros_like(x), rtol=0, atol=1e-9)


def test_spline_passes_its_knots_with_their_derivatives() -> None:
    positions = torch.tensor([-1.0, 0.5, 1.0], dtype=torch.float64)
    values = torch.tensor([-1.0, -0.5, 1.0], dtype=torch.float64)
    derivatives = torch.tensor([1.0, 0.3, 1.0], dtype=torch.float64)
    for at, value, slope in [(-0.999999, -0.999999, 1.0), (0.5, -0.5, 0.3), (0.999999, 0.999999, 1.0)]:
        x = torch.tensor(at, dtype=torch.float64)
        y, log_slope = rational_quadratic(x, positions, values, derivatives)
        assert y.item() == pytest.approx(value, abs=1e-9)
        assert log_slope.exp().item() == pytest.approx(slope, abs=1e-4)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 10))
def test_spline_increases_and_round_trips(seed: int, spread: float) -> None:
    x = torch.linspace(-3.5, 3.5, 301, dtype=torch.float64)[:, None]
    raw = parameters(seed, 1, spread).expand(301, -1, -1)
    z, log_derivative = LAW.forward(x, raw)
    assert (z.diff(dim=0) > 0).all()
    back, log_back = LAW.inverse(z, raw)
    # The inverse magnifies an error in the last digit of z by one over the slope.
    assert ((back - x).abs() <= 1e3 * 2.0**-52 * (1 + (-log_derivative).exp())).all()
    torch.testing.assert_close(log_back, -log_derivative, rtol=0, atol=1e-3)


def test_spline_is_the_identity_outside_its_bound() -> None:
    x = torch.tensor([[-100.0], [-3.0], [3.0], [1e30]], dtype=torch.float64)
    z, log_derivative = LAW.forward(x, parameters(0, 4))
    assert torch.equal(z, x)
    assert log_derivative.flatten().tolist() == [0, 0, 0, 0]
