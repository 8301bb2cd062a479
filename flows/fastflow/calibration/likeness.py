"""Comparison of an image's features with those of the calibration images.

An image far from all of them is probably no image of the product. The distance is that of Mahalanobis, by the
mean and the covariance of the statistics of the calibration images. It is compared with the distance of the
farthest calibration image, which is left out of its own mean and covariance.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Times the distance of the farthest calibration image. Measured: of held-out good images less than 1 % are
# farther, of images of other products all, see docs/explanation/calibration.md.
_FAR: Final = 2.0


class Likeness:
    """Test if statistics of features are far from those of calibration images.

    Args:
        statistics: (n, d), of the calibration images, see `ScoredImage`.

    Raises:
        ValueError: there are too few images, see `min_images`.
    """

    def __init__(self, statistics: NDArray[np.float64]) -> None:
        n, d = statistics.shape
        if n < min_images(d):
            raise ValueError(f"{d} statistics need at least {min_images(d)} images; got {n}")
        self._mean = statistics.mean(0)
        self._precision = np.linalg.pinv(np.cov(statistics.T, ddof=1).reshape(d, d))
        # Mean and covariance without the image itself, by the formula of Sherman and Morrison.
        share = max(map(self._squared_distance, statistics)) / (n - 1)
        rest = 1 - n / (n - 1) * share
        left_out = (n / (n - 1)) ** 2 * (n - 2) * share / rest if rest > 0 else np.inf
        self.limit = float(_FAR * np.sqrt(left_out))

    def is_far(self, statistics: Sequence[float]) -> bool:
        """Tell if the statistics of an image are far from those of all calibration images."""
        return self._squared_distance(np.asarray(statistics)) > self.limit**2

    def _squared_distance(self, statistics: NDArray[np.float64]) -> float:
        difference = statistics - self._mean
        return float(difference @ self._precision @ difference)


def min_images(statistics: int) -> int:
    """Return the fewest calibration images that give a distance for so many statistics."""
    return statistics + 4
