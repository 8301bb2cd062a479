"""Planar flow and its numerical inverse."""

import math

import mpmath
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import softplus

from flows import Planar
from flows.planar import _solve


def margins() -> st.SearchStrategy[float]:
    """Draw 1 + c from 1e-300, where f is almost not invertible, to 1e6."""
    return st.floats(-300, 6).map(lambda exponent: 10.0**exponent)


@settings(max_examples=200)
@given(margin=margins(), target=st.floats(-1e6, 1e6))
@example(margin=1e-300, target=1e-30)
@example(margin=1e6, target=1e6 - 1)
@example(margin=1.0, target=0.0)
@example(margin=1e-17, target=5e-324)
def test_newton_finds_the_solution(margin: float, target: float) -> None:
    """In exact arithmetic, t + c tanh t equals the target within rounding of its terms."""
    c = margin - 1
    found = _solve(*(torch.tensor(v, dtype=torch.float64) for v in (target, c, margin))).item()
    with mpmath.workdps(60):
        t, exact = mpmath.mpf(found), mpmath.mpf(margin) - 1
        value = t + exact * mpmath.tanh(t)
        slope = mpmath.mpf(margin) * mpmath.sech(t) ** 2 + mpmath.tanh(t) ** 2
        # Both terms and t have a rounding error.
        digits = 4 * 2.0**-52 * (abs(t) + abs(exact * mpmath.tanh(t)) + abs(t) * slope) + 1e-300
        assert abs(value - target) <= digits


def test_planar_matches_the_papers_formula_with_our_m() -> None:
    torch.manual_seed(0)
    flow = Planar(3).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    u, w, b = (p.detach() for p in (flow.u, flow.w, flow.b))
    along = w @ u
    m = -1 + softplus(along + math.log(math.e - 1))
    u_hat = u + (m - along) * w / (w @ w)
    a = x @ w + b
    z, log_det = flow.forward(x)
    torch.testing.assert_close(z, x + u_hat * torch.tanh(a)[:, None])
    psi = (1 - torch.tanh(a) ** 2)[:, None] * w
    torch.testing.assert_close(log_det, (1 + psi @ u_hat).abs().log())


def test_planar_with_w_0_is_a_shift() -> None:
    flow = Planar(2).double()
    torch.nn.init.zeros_(flow.w)
    x = torch.randn(3, 2, dtype=torch.float64)
    z, log_det = flow.forward(x)
    torch.testing.assert_close(z, x + flow.u * torch.tanh(flow.b))
    assert log_det.tolist() == [0, 0, 0]
    loss = flow.inverse(z)[0].sum() + log_det.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
