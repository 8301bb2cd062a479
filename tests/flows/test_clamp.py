"""Clamps of the log-scale."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flows import SigmoidScale, SoftClamp, SoftplusScale

bounds = st.floats(0.01, 20)


@given(bound=bounds, a=st.floats(-1e6, 1e6))
def test_soft_clamp_matches_formula(bound: float, a: float) -> None:
    s = SoftClamp(bound)(torch.tensor(a, dtype=torch.float64)).item()
    assert s == pytest.approx(bound * math.tanh(a / bound), rel=1e-12, abs=1e-300)


@given(bound=bounds, a=st.floats(allow_nan=False, width=32))
def test_soft_clamp_stays_in_bounds_in_float32(bound: float, a: float) -> None:
    s = SoftClamp(bound)(torch.tensor(a, dtype=torch.float32))
    assert abs(s.item()) <= torch.tensor(bound, dtype=torch.float32).item()
    assert s.exp().isfinite()


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_soft_clamp_rejects_invalid_bounds(bound: float) -> None:
    with pytest.raises(ValueError, match="expected a finite bound above 0; got"):
        SoftClamp(bound)


@given(a=st.floats(-1e6, 1e6))
def test_sigmoid_scale_is_glows_with_a_floor(a: float) -> None:
    s = SigmoidScale()(torch.tensor(a, dtype=torch.float64)).item()
    sigmoid = 1 / (1 + math.exp(-max(a + 2, -700)))
    assert s == pytest.approx(math.log(1e-3 + 0.999 * sigmoid), abs=1e-12)
    assert math.log(1e-3) <= s <= 0


@given(a=st.floats(-1e6, 1e6))
def test_softplus_scale_matches_formula(a: float) -> None:
    s = SoftplusScale()(torch.tensor(a, dtype=torch.float64)).item()
    x = a + math.log(math.e - 1)
    softplus = max(x, 0) + math.log1p(math.exp(-abs(x)))
    assert s == pytest.approx(math.log(1e-3 + softplus), abs=1e-9)
