"""How values of positions become values of pixels."""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Larger values are taken as this one: infinity times a weight of 0 is NaN, which would fill rows and columns.
MAX_ENERGY: Final = 1e37


@lru_cache(maxsize=64)
def spline_weights(n: int, m: int) -> NDArray[np.float32]:
    """The matrix that makes m pixels of n values in a row: a cubic B-spline whose coefficients they are.

    It does not go through the values but smooths over four of them (Unser, "Splines: a perfect fit for signal
    and image processing", 1999, equation 5, without the prefilter): what is noise in single positions
    counts less. Centres of pixels lie at (i + 0.5) / m, and the border continues flat.

    Args:
        n: values, at least 1.
        m: pixels, at least 1.

    Returns:
        (m, n), not to be written to; each row sums to 1.
    """
    centres = (np.arange(m) + 0.5) * n / m - 0.5
    # Two values more on either side, which are those of the border.
    distances = np.abs(centres[:, None] - np.arange(-2, n + 2))
    near = 2 / 3 - distances**2 + distances**3 / 2
    far = np.maximum(2 - distances, 0) ** 3 / 6
    weights = np.where(distances < 1, near, far)
    inside = weights[:, 2:-2]
    inside[:, 0] += weights[:, :2].sum(1)
    inside[:, -1] += weights[:, -2:].sum(1)
    found = np.ascontiguousarray(inside, dtype=np.float32)
    found.flags.writeable = False
    return found
