"""The clamps of the log-scale."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flows import LearnedClamp, SigmoidScale, SoftClamp, SoftplusScale

bounds = st.floats(0.01, 20)


@given(bound=bounds, a=st.floats(-1e6, 1e6))
def test_it_is_c_tanh_a_over_c(bound: float, a: float) -> None:
    s = SoftClamp(bound)(torch.tensor(a, dtype=torch.float64)).item()
    assert s == pytest.approx(bound * math.tanh(a / bound), rel=1e-12, abs=1e-300)


@given(bound=bounds, a=st.floats(allow_nan=False, width=32))
def test_it_never_leaves_its_bounds_in_single_precision(bound: float, a: float) -> None:
    s = SoftClamp(bound)(torch.tensor(a, dtype=torch.float32))
    assert abs(s.item()) <= torch.tensor(bound, dtype=torch.float32).item()
    assert s.exp().isfinite()


@pytest.mark.parametrize("bound", [0.1, 1.0, 2.0, 20.0])
def test_its_slope_at_0_is_1_whatever_the_bound(bound: float) -> None:
    """The other clamp of that name, c tanh(0.1 a), has slope 0.1 c there."""
    a = torch.zeros((), dtype=torch.float64, requires_grad=True)
    [slope] = torch.autograd.grad(SoftClamp(bound)(a), a)
    assert slope.item() == 1.0


def test_it_keeps_order_and_shape() -> None:
    a = torch.linspace(-6, 6, 24, dtype=torch.float64).reshape(2, 3, 4)
    s = SoftClamp(2.0)(a)
    assert s.shape == a.shape
    assert (s.flatten().diff() > 0).all()
    assert torch.equal(s, -s.flip(0, 1, 2))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="expected a finite bound above 0; got"):
        SoftClamp(bound)


def test_the_learned_clamp_has_a_bound_per_channel() -> None:
    clamp = LearnedClamp(2)
    clamp.load_state_dict({"scale": torch.tensor([0.5, 3.0])})
    for shape in ((4, 2), (4, 2, 3, 3)):
        s = clamp(torch.full(shape, 1e6))
        assert s[:, 0].unique().tolist() == [0.5]
        assert s[:, 1].unique().tolist() == [3.0]


@given(a=st.floats(-1e6, 1e6))
def test_the_sigmoid_scale_is_glows_kept_from_0(a: float) -> None:
    s = SigmoidScale(1e-3)(torch.tensor(a, dtype=torch.float64)).item()
    sigmoid = 1 / (1 + math.exp(-max(a + 2, -700)))
    assert s == pytest.approx(math.log(1e-3 + 0.999 * sigmoid), abs=1e-12)
    assert math.log(1e-3) <= s <= 0


@pytest.mark.parametrize("floor", [0.0, 1.0, -1.0, math.nan])
def test_other_floors_are_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="expected a floor between 0 and 1; got"):
        SigmoidScale(floor)


@given(a=st.floats(-1e6, 1e6))
def test_the_softplus_scale_grows_as_its_input(a: float) -> None:
    s = SoftplusScale(1e-3)(torch.tensor(a, dtype=torch.float64)).item()
    x = a + math.log(math.e - 1)
    softplus = max(x, 0) + math.log1p(math.exp(-abs(x)))
    assert s == pytest.approx(math.log(1e-3 + softplus), abs=1e-9)


@pytest.mark.parametrize("floor", [0.0, -1.0, math.inf, math.nan])
def test_other_floors_of_the_softplus_are_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="expected a finite floor above 0; got"):
        SoftplusScale(floor)
