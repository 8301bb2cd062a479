"""Area average of large images in two threads, where OpenCV uses one.

OpenCV divides the work by the pixels of the result, and computes results of up to 313 x 313 pixels in a
single thread, however large the image is. Reducing 900 x 900 to 256 x 256 pixels takes a fifth of an
inspection.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels of a result from which OpenCV uses a second thread: it divides by 2**16 and rounds.
_OPENCV_DIVIDES_FROM: Final = 1.5 * 2**16
# Pixels of an image from which a second thread pays.
_MIN_PIXELS: Final = 2**17


_helpers = ThreadPoolExecutor(max(1, cv2.getNumThreads() - 1), "area")


def area_average(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Reduce an image (H, W) or (H, W, C) to ``size`` = (height, width), no side longer than before.

    Each pixel counts by the share of it that lies in the new pixel. The result is that of
    ``cv2.INTER_AREA`` to the last bit.
    """
    height, width = size
    reduced = np.empty((height, width, *image.shape[2:]), image.dtype)
    # Bands of rows that share no pixel.
    bands = math.gcd(image.shape[0], height)
    slow = image.shape[0] % height or image.shape[1] % width
    large = image.shape[0] * image.shape[1] >= _MIN_PIXELS and height * width < _OPENCV_DIVIDES_FROM
    if bands < 2 or not slow or not large or cv2.getNumThreads() < 2:
        _resize(image, reduced)
        return reduced
    middle = bands // 2
    row, reduced_row = middle * (image.shape[0] // bands), middle * (height // bands)
    try:
        second = _helpers.submit(_resize, image[row:], reduced[reduced_row:])
    except RuntimeError:  # the interpreter shuts down, or no thread can be started
        second = None
    _resize(image[:row], reduced[:reduced_row])
    # If all helpers are busy with other images, this thread does the second half too.
    if second is None or second.cancel():
        _resize(image[row:], reduced[reduced_row:])
    else:
        second.result()
    return reduced


def _resize(image: NDArray[Any], target: NDArray[Any]) -> None:
    height, width = target.shape[:2]
    cv2.resize(image, (width, height), dst=target, interpolation=cv2.INTER_AREA)
