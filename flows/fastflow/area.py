"""Area averages by two threads, where OpenCV takes one.

OpenCV divides the work by the pixels of the result, and gives one of 256 x 256 to a single thread, however
large the picture was: of 900 x 900 pixels that is a fifth of what inspecting a single picture takes.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Pixels of a result that OpenCV gives to one thread.
_OF_ONE_THREAD: Final = 2**16
# Pixels of a picture from which on it pays.
_LARGE: Final = 2**17

_helpers: Final = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), "area")


def average(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """``image`` (H, W) or (H, W, C) at ``size`` = (height, width), of which no side is longer.

    Every pixel counts by what of it lies in the new one. To the last bit it is what ``cv2.INTER_AREA`` gives.
    """
    height, width = size
    found = np.empty((height, width, *image.shape[2:]), image.dtype)
    # Between bands no pixel is shared.
    bands = math.gcd(image.shape[0], height)
    slow = image.shape[0] % height or image.shape[1] % width
    large = image.shape[0] * image.shape[1] >= _LARGE
    if bands < 2 or not slow or not large or height * width > _OF_ONE_THREAD:
        _resize(image, found)
        return found
    middle = bands // 2
    here, there = middle * (image.shape[0] // bands), middle * (height // bands)
    second = _helpers.submit(_resize, image[here:], found[there:])
    _resize(image[:here], found[:there])
    # Where all helpers are busy, as those of many pictures at once are, nobody waits for them.
    if second.cancel():
        _resize(image[here:], found[there:])
    else:
        second.result()
    return found


def _resize(image: NDArray[Any], found: NDArray[Any]) -> None:
    height, width = found.shape[:2]
    cv2.resize(image, (width, height), dst=found, interpolation=cv2.INTER_AREA)
