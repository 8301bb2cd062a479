"""A scale by sums and products is the exponential of a tanh, to what is said of it."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openvino")

import openvino as ov
import openvino.opset13 as op

from flows.fastflow.engines.openvino_scale import exp_tanh, off_by_power, power_of

BOUNDS = (0.1, 0.82, 1.31, 2.0, 2.08, 3.0, 4.0)  # some as large as their power allows


def scales(bound: float, u: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale where a is 2 u, by a graph in float32."""
    a = op.parameter([1, 1, 1, len(u)], np.float32)
    found = exp_tanh(a, bound)
    assert found is not None
    graph = ov.Core().compile_model(ov.Model([found], [a]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result: NDArray[np.float32] = graph(2 * u.reshape(1, 1, 1, -1))[0].reshape(-1)
    return result


@pytest.mark.parametrize("bound", BOUNDS)
def test_it_is_off_by_what_is_said(bound: float) -> None:
    u = np.linspace(-10, 10, 4001, dtype=np.float32)
    tanh = np.tanh(u.astype(np.float64))
    power = power_of(bound)
    assert power is not None
    of_power = np.array([off_by_power(abs(s), power) for s in bound * tanh])
    off = np.abs(np.log(scales(bound, u)) - bound * tanh) - of_power
    rounding = 1e-5
    for least, most, share, at_most in (
        (0, 0.5, 2e-3, 0.0),
        (0, 1.5, 9e-3, 0.0),
        (0, np.inf, 0.0, 9.4e-3),
        (4, np.inf, 0.0, 2e-3),
    ):
        within = (np.abs(u) >= least) & (np.abs(u) <= most)
        assert within.any()
        assert (off <= bound * (share * np.abs(tanh) + at_most) + rounding)[within].all()


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_power_is_off_by_little_and_a_smaller_one_by_more(bound: float) -> None:
    power = power_of(bound)
    assert power is not None
    s = np.linspace(-bound, bound, 201)
    y = s / power
    exact = np.abs(power * np.log1p(y + y * y / 2) - s)
    assert exact.max() == pytest.approx(off_by_power(bound, power))
    assert exact.max() <= 6e-3
    assert power == 4 or off_by_power(bound, power // 2) > 6e-3


def test_it_grows_to_what_it_is_far_out_but_for_a_hundredth() -> None:
    found = scales(2.0, np.linspace(-2.6, 2.6, 1041, dtype=np.float32))
    assert (np.diff(found[100:-100]) > 0).all()  # to 2.1
    assert (found <= 1.01 * found[-1]).all()
    assert (found >= 0.99 * found[0]).all()
    far = scales(2.0, np.array([-np.inf, -1e30, -2.6, 2.6, 1e30, np.inf], np.float32))
    np.testing.assert_array_equal(far, far[[2, 2, 2, 3, 3, 3]])


@pytest.mark.parametrize("bound", [4.1, 20.0])
def test_of_larger_bounds_there_is_none(bound: float) -> None:
    a = op.parameter([1, 1, 1, 1], np.float32)
    assert power_of(bound) is None
    assert exp_tanh(a, bound) is None
