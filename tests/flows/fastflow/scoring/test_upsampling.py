"""Weights of a spline: those of its definition, and what they make is as smooth as it says."""

import numpy as np
import pytest
from scipy.interpolate import BSpline

from flows.fastflow.scoring.upsampling import spline_weights

SIZES = [(1, 1), (1, 7), (2, 5), (3, 3), (8, 256), (32, 256), (7, 100), (12, 5)]


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_they_are_those_of_a_cubic_b_spline_between_centres(n: int, m: int) -> None:
    centres = (np.arange(m) + 0.5) * n / m - 0.5
    for k in range(n):
        values = np.pad(np.eye(n)[k], 2, mode="edge")
        # The basis function of coefficient i is centred two knots after the i-th.
        spline = BSpline(np.arange(len(values) + 4) - 4.0, values, 3)
        np.testing.assert_allclose(spline_weights(n, m)[:, k], spline(centres), atol=1e-6)
