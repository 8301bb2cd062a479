"""Area averages by two threads, where OpenCV takes one.

OpenCV divides the work by the pixels of the result, and gives one of up to 313 x 313 to a single thread,
however large the picture was: 900 x 900 to 256 x 256 pixels are a fifth of what inspecting one picture takes.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels of a result from which on OpenCV takes a second thread: it divides by 2**16 and rounds.
_DIVIDED: Final = 1.5 * 2**16
# Pixels of a picture from which on it pays.
_LARGE: Final = 2**17


_helpers = ThreadPoolExecutor(max(1, cv2.getNumThreads() - 1), "area")


def area_average(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """``image`` (H, W) or (H, W, C) at ``size`` = (height, width), of which no side is longer.

    Every pixel counts by what of it lies in the new one. To the last bit it is what ``cv2.INTER_AREA`` gives.
    """
    height, width = size
    found = np.empty((height, width, *image.shape[2:]), image.dtype)
    # Between bands no pixel is shared.
    bands = math.gcd(image.shape[0], height)
    slow = image.shape[0] % height or image.shape[1] % width
    large = image.shape[0] * image.shape[1] >= _LARGE and height * width < _DIVIDED
    if bands < 2 or not slow or not large or cv2.getNumThreads() < 2:
        _resize(image, found)
        return found
    middle = bands // 2
    here, there = middle * (image.shape[0] // bands), middle * (height // bands)
    try:
        second = _helpers.submit(_resize, image[here:], found[there:])
    except RuntimeError:  # Python ends, or may start no more threads
        second = None
    _resize(image[:here], found[:there])
    # Where all helpers are busy, as those of many pictures at once are, nobody waits for them.
    if second is None or second.cancel():
        _resize(image[here:], found[there:])
    else:
        second.result()
    return found


def _resize(image: NDArray[Any], found: NDArray[Any]) -> None:
    height, width = found.shape[:2]
    cv2.resize(image, (width, height), dst=found, interpolation=cv2.INTER_AREA)
