"""Images among the good ones that are unlike the others: other parts, other light, out of focus, defective.

An image is suspicious where its fifth nearest neighbour is far: the logarithm of that distance is more than
five robust standard deviations above the median. Neighbours rather than a centre, so that several variants
of a part may be good.

On the development set two of 2,344 good images are named, a solar cell that is nearly dark and an
overexposed tile; so are all of 240 images of another category that were put among the good ones.
"""

import numpy as np
from numpy.typing import NDArray

from training.data.check.near_duplicates import count_others

LIMIT = 5.0  # robust standard deviations
MIN_IMAGES = 20  # images, below which nothing can be said
_NEIGHBOUR = 5
_ROWS = 512


def deviations(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far distances (N,) to a neighbour are above the median, in robust deviations of their logarithms.

    The deviation is 1.4826 times the median absolute one, which for normal data is the standard deviation; at
    least a tenth, so that among images that are nearly the same none is suspicious for being a little less
    so.
    """
    logs = np.log(distances + 1e-3)
    middle = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.1)
    return np.asarray((logs - middle) / spread, dtype=np.float32)


def neighbour_distances(
    descriptors: NDArray[np.float32], *, least: float, parts: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Distance of each descriptor to the fifth nearest other one, each dimension in its robust deviation.

    Args:
        descriptors: (N, D). Memory is that of 512 rows of distances.
        least: the smallest deviation that counts, so that a dimension that never changes says nothing by its
            last digit.
        parts: (N,) numbers of the parts that they show, at least 2: others of its part are no neighbours of a
            image. None where each shows another.

    Returns:
        (N,) root mean squares over dimensions.
    """
    parts = np.arange(len(descriptors)) if parts is None else parts
    middle = np.median(descriptors, 0)
    spread = 1.4826 * np.median(np.abs(descriptors - middle), 0)
    scaled = ((descriptors - middle) / np.maximum(spread, least)).astype(np.float32)
    squares = (scaled**2).sum(1)
    fifth = np.empty(len(scaled), dtype=np.float32)
    k = min(_NEIGHBOUR, count_others(parts))
    for start in range(0, len(scaled), _ROWS):
        rows = scaled[start : start + _ROWS]
        block = squares[start : start + len(rows), None] + squares - 2 * (rows @ scaled.T)
        block[parts[start : start + len(rows), None] == parts] = np.inf
        fifth[start : start + len(rows)] = np.partition(block, k - 1, axis=1)[:, k - 1]
    return np.asarray(np.sqrt(np.maximum(fifth, 0) / scaled.shape[1]), dtype=np.float32)
