"""PNG files of a flow's images: single ones, or a sheet of many."""

import math
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

GAP = 2  # pixels between the images of a sheet, and around them
_BACKGROUND = 128
_MIN_SIDE = 48  # an 8 x 8 digit would be a speck on a screen


class SheetError(ValueError):
    """The values cannot be drawn as images."""


def to_pixels(images: Tensor, levels: int) -> NDArray[np.uint8]:
    """Convert integers 0 ... levels - 1, (N, C, H, W), to 8-bit pixels, (N, H, W, C).

    Raises:
        SheetError: a value is not finite.
    """
    if not images.isfinite().all():
        raise SheetError("the flow's samples are not finite numbers; try a lower --temperature")
    grey = (images.cpu() * (255 / (levels - 1))).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(grey.permute(0, 2, 3, 1).numpy())


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 1 or 3) pixels as PNG."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def sheet(images: Tensor, levels: int, *, columns: int | None = None) -> bytes:
    """Draw images in rows from the upper left as a PNG; small ones are enlarged, pixel by pixel.

    Args:
        images: (N, C, H, W), N >= 1, integers 0 ... levels - 1.
        columns: images per row; by default the sheet is about square.

    Returns:
        A PNG of the size `sheet_size`.
    """
    pixels = to_pixels(images, levels)
    count, height, width, channels = pixels.shape
    columns = columns or default_columns(count)
    zoom = _zoom(height, width)
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    full_width, full_height = sheet_size(count, height, width, columns)
    whole = np.full((full_height, full_width, channels), _BACKGROUND, np.uint8)
    for i, image in enumerate(pixels):
        top = GAP + i // columns * (zoom * height + GAP)
        left = GAP + i % columns * (zoom * width + GAP)
        whole[top : top + zoom * height, left : left + zoom * width] = image
    return png(whole)


def default_columns(count: int) -> int:
    """Compute the images per row of a square sheet."""
    return math.ceil(math.sqrt(count))


def sheet_size(count: int, height: int, width: int, columns: int) -> tuple[int, int]:
    """Compute (width, height) in pixels of a sheet of `count` images of height x width."""
    zoom = _zoom(height, width)
    rows = math.ceil(count / columns)
    return columns * (zoom * width + GAP) + GAP, rows * (zoom * height + GAP) + GAP


def _zoom(height: int, width: int) -> int:
    return max(1, math.ceil(_MIN_SIDE / min(height, width)))
