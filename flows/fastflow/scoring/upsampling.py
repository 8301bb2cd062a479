"""Interpolation from positions of a map to pixels."""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Larger values are clipped: infinity times a weight of 0 is NaN, which would fill rows and columns.
MAX_ENERGY: Final = 1e37


@lru_cache(maxsize=64)
def spline_weights(n: int, m: int) -> NDArray[np.float32]:
    """Compute the matrix of a cubic B-spline that turns n coefficients into m pixels.

    The spline does not interpolate the values but smooths over four of them (Unser, "Splines: a perfect fit
    for signal and image processing", 1999, equation 5, without the prefilter), so noise of single positions
    counts less. Centres of pixels lie at (i + 0.5) / m, and the border continues flat.

    Args:
        n: number of values, at least 1.
        m: number of pixels, at least 1.

    Returns:
        (m, n), read-only; each row sums to 1.
    """
    centres = (np.arange(m) + 0.5) * n / m - 0.5
    # Two more values on either side, equal to those of the border.
    distances = np.abs(centres[:, None] - np.arange(-2, n + 2))
    near = 2 / 3 - distances**2 + distances**3 / 2
    far = np.maximum(2 - distances, 0) ** 3 / 6
    weights = np.where(distances < 1, near, far)
    inside = weights[:, 2:-2]
    inside[:, 0] += weights[:, :2].sum(1)
    inside[:, -1] += weights[:, -2:].sum(1)
    matrix = np.ascontiguousarray(inside, dtype=np.float32)
    matrix.flags.writeable = False
    return matrix
