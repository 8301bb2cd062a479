"""Outliers among the good images: other parts, other light, out of focus, defective.

An image is an outlier if its fifth nearest neighbour is far: the logarithm of that distance is more than five
robust standard deviations above the median. Neighbours instead of a centre allow several variants of a part.

On the development set the check reports two of 2,344 good images, a nearly dark solar cell and an overexposed
tile. It also reports all of 240 images of another category that were put among the good ones.
"""

import numpy as np
from numpy.typing import NDArray

from training.data.check.near_duplicates import count_others

LIMIT = 5.0  # robust standard deviations
MIN_IMAGES = 20  # fewer allow no statement
_NEIGHBOUR = 5
_ROWS = 512


def deviations(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardise the logarithms of distances (N,) by their median and robust deviation.

    The robust deviation is 1.4826 times the median absolute deviation, which equals the standard deviation of
    normal data. It is at least 0.1, so that nearly equal images give no outliers.
    """
    logs = np.log(distances + 1e-3)
    middle = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.1)
    return np.asarray((logs - middle) / spread, dtype=np.float32)


def neighbour_distances(
    descriptors: NDArray[np.float32], *, min_deviation: float, parts: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Compute each descriptor's distance to the fifth nearest one, dimensions in robust deviations.

    Args:
        descriptors: (N, D). Memory holds 512 rows of distances.
        min_deviation: smallest deviation of a dimension, so that a constant dimension adds no noise.
        parts: (N,) part numbers, at least 2 different ones; images of one part are no neighbours. None if
            each image shows another part.

    Returns:
        (N,) root mean squares over dimensions.
    """
    parts = np.arange(len(descriptors)) if parts is None else parts
    middle = np.median(descriptors, 0)
    spread = 1.4826 * np.median(np.abs(descriptors - middle), 0)
    scaled = ((descriptors - middle) / np.maximum(spread, min_deviation)).astype(np.float32)
    squares = (scaled**2).sum(1)
    fifth = np.empty(len(scaled), dtype=np.float32)
    k = min(_NEIGHBOUR, count_others(parts))
    for start in range(0, len(scaled), _ROWS):
        rows = scaled[start : start + _ROWS]
        block = squares[start : start + len(rows), None] + squares - 2 * (rows @ scaled.T)
        block[parts[start : start + len(rows), None] == parts] = np.inf
        fifth[start : start + len(rows)] = np.partition(block, k - 1, axis=1)[:, k - 1]
    return np.asarray(np.sqrt(np.maximum(fifth, 0) / scaled.shape[1]), dtype=np.float32)
