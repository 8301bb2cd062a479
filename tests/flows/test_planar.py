"""The planar flow, and its inverse that the paper lacks."""

import math

import mpmath
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import gradgradcheck
from torch.nn.functional import softplus

from flows import Planar
from flows.planar import _solve


def margins() -> st.SearchStrategy[float]:
    """1 + c, from all but folded to stretched a million times."""
    return st.floats(-300, 6).map(lambda exponent: 10.0**exponent)


@settings(max_examples=200)
@given(margin=margins(), target=st.floats(-1e6, 1e6))
@example(margin=1e-300, target=1e-30)
@example(margin=1e6, target=1e6 - 1)
@example(margin=1.0, target=0.0)
@example(margin=1e-17, target=5e-324)
def test_the_search_ends_at_the_solution(margin: float, target: float) -> None:
    """Backward error: t + c tanh t is the target within the digits of the two, in exact arithmetic."""
    c = margin - 1
    found = _solve(*(torch.tensor(v, dtype=torch.float64) for v in (target, c, margin))).item()
    with mpmath.workdps(60):
        t, exact = mpmath.mpf(found), mpmath.mpf(margin) - 1
        value = t + exact * mpmath.tanh(t)
        slope = mpmath.mpf(margin) * mpmath.sech(t) ** 2 + mpmath.tanh(t) ** 2
        # The sum's terms have a rounding error each, and so has t.
        digits = 4 * 2.0**-52 * (abs(t) + abs(exact * mpmath.tanh(t)) + abs(t) * slope) + 1e-300
        assert abs(value - target) <= digits


def test_it_is_the_papers_formula_with_our_m() -> None:
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


def test_where_w_is_0_it_is_a_shift() -> None:
    flow = Planar(2).double()
    torch.nn.init.zeros_(flow.w)
    x = torch.randn(3, 2, dtype=torch.float64)
    z, log_det = flow.forward(x)
    torch.testing.assert_close(z, x + flow.u * torch.tanh(flow.b))
    assert log_det.tolist() == [0, 0, 0]
    loss = flow.inverse(z)[0].sum() + log_det.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_but_folded_it_still_has_a_log_det(dtype: torch.dtype) -> None:
    """w.u = -60: 1 + c is 1e-26, and log(1 + c sech^2 a) as it is written -infinity at a = 0."""
    flow = Planar(1)
    torch.nn.init.constant_(flow.w, 1.0)
    torch.nn.init.constant_(flow.u, -60.0)
    flow = flow.to(dtype)
    _, log_det = flow.forward(torch.zeros(1, 1, dtype=dtype))
    assert log_det.item() == pytest.approx(-60 + math.log(math.e - 1), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_folds_nor_loses_more_than_the_result_is_rounded_by(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-4, 4, 401)[:, None].to(dtype)
    for along in torch.linspace(-12, 3, 61).tolist():
        flow, exact = Planar(1), Planar(1).double()
        torch.nn.init.constant_(flow.w, 1.0)
        torch.nn.init.constant_(flow.u, along)
        flow = flow.to(dtype)
        exact.load_state_dict(flow.state_dict())
        _, c, margin = flow._push()
        assert c >= -1
        assert margin > 0
        z, log_det = flow.forward(x)
        assert (z.diff(dim=0) >= 0).all()
        assert z.dtype == log_det.dtype == dtype
        expected, expected_log_det = exact.forward(x.double())
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(z.double(), expected, rtol=rounding, atol=1e-5)
        torch.testing.assert_close(log_det.double(), expected_log_det, rtol=rounding, atol=1e-5)
        back, undone = flow.inverse(z)
        again, again_undone = exact.inverse(z.double())
        torch.testing.assert_close(back.double(), again, rtol=rounding, atol=1e-5)
        torch.testing.assert_close(undone.double(), again_undone, rtol=rounding, atol=1e-4)


def test_it_needs_a_feature() -> None:
    with pytest.raises(ValueError, match="expected at least 1 channel or feature; got 0"):
        Planar(0)


@pytest.mark.parametrize("size", [1e-7, 1e-4, 0.1])
def test_a_small_w_keeps_its_digits(size: float) -> None:
    """c = m(w.u), a difference of numbers near 1 where w is small, as the paper's m never lets it be."""
    torch.manual_seed(0)
    flow = Planar(2)
    with torch.no_grad():
        flow.w.mul_(size / flow.w.norm())
    exact = Planar(2).double()
    exact.load_state_dict(flow.state_dict())
    push, c, _ = flow._push()
    expected, expected_c, _ = exact._push()
    torch.testing.assert_close(push, expected.float(), rtol=1e-5, atol=1e-6)
    assert c.item() == pytest.approx(expected_c.item(), rel=1e-5)


def test_the_inverse_has_second_derivatives() -> None:
    torch.manual_seed(0)
    flow = Planar(2).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(flow.inverse, (x,))
