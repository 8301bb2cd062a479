"""Resizing of images, the same for training and serving."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.config import Shrink

Pixel = TypeVar("Pixel", np.uint8, np.float32)

# `halves-area` halves a side while it is at least this many times as long as the target. Two averages of
# nearly the same step would blur fine textures in a pattern.
_HALVED_FROM = 4


def resize(image: NDArray[Pixel], size: tuple[int, int], shrink: Shrink = "area") -> NDArray[Pixel]:
    """Resize an image (H, W) or (H, W, C) to (height, width); the aspect ratio may change.

    ``area`` is the area average: each pixel counts by the share of it that lies in the new pixel.
    ``halves-area`` halves a side first while it is at least four times as long as the target. The result is
    nearly the same, identical for smaller ratios, and 2 to 7 times as fast for larger ones. Sides that grow
    are interpolated bilinearly, after the others became shorter.

    Args:
        size: (height, width) of the result.
        shrink: method by which a side becomes shorter.

    Raises:
        ValueError: a side of ``size`` is less than a pixel.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width), each at least 1; got {size}")
    if shrink == "halves-area":
        image = _halved(image, (_HALVED_FROM * height, _HALVED_FROM * width))
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    return _interpolated(_interpolated(image, smaller, cv2.INTER_AREA), size, cv2.INTER_LINEAR)


def _interpolated(image: NDArray[Pixel], size: tuple[int, int], how: int) -> NDArray[Pixel]:
    if image.shape[:2] == size:
        return image
    resized = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), dtype=image.dtype)
    return resized.reshape(*size, *image.shape[2:])  # OpenCV drops an axis of one channel


def _halved(image: NDArray[Pixel], least: tuple[int, int]) -> NDArray[Pixel]:
    """Halve the sides of an image while they are at least ``least`` long."""
    while any(halves := [side >= n for side, n in zip(image.shape[:2], least, strict=True)]):
        # Half-way between two pixels bilinear interpolation is their mean. In steps of a little more than two
        # it would skip pixels.
        odd = [side % 2 if half else 0 for half, side in zip(halves, image.shape[:2], strict=True)]
        if any(odd):
            even = cv2.copyMakeBorder(image, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
            image = np.asarray(even, dtype=image.dtype)
        height, width = (
            side // 2 if half else side for half, side in zip(halves, image.shape[:2], strict=True)
        )
        image = np.asarray(cv2.resize(image, (width, height)), dtype=image.dtype)
    return image
