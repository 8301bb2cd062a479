"""Settings of the geometry, and the choice of the input size from the images: `geometry.fit: auto`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import Field

from flows.fastflow.config import Geometry, GeometrySettings

DEFAULT_INPUT: Final = (256, 256)
_UNIT: Final = math.prod(DEFAULT_INPUT)
_STEP: Final = 32  # the coarsest stride of the backbones that are convolutional networks
_MAX_SIDE: Final = 4096
_SQUARE_UP_TO: Final = 1.5
_ALIKE_UP_TO: Final = 1.25
_ROUNDING: Final = 1.05
# Single pixels of a camera hold little: a colour sensor measures one colour at each, and JPEG halves colours.
_REDUCTION: Final = 4


class GeometryConfig(GeometrySettings):
    """Fit of images to the input size; `auto` is resolved before the fit."""

    fit: Literal["auto", "stretch", "pad", "tile"] = Field(
        default="auto",
        description="resize to the input size (`stretch`), pad to its aspect ratio, or cut into tiles; "
        "`auto` stretches to `input_size`, or chooses it by the sizes of the images if that is null",
    )
    max_tiles: int = Field(
        default=4,
        ge=1,
        le=64,
        description="`auto`: largest input, and time per image, in inputs of 256 x 256 pixels",
    )

    def resolved(self) -> Geometry:
        """Return the geometry that a bundle records; `auto` stretches."""
        values = self.model_dump(exclude={"max_tiles"})
        return Geometry(**(values | {"fit": "stretch"} if self.fit == "auto" else values))


@dataclass(frozen=True)
class InputChoice:
    """The input size for a set of images, with the reason in a sentence."""

    input_size: tuple[int, int]
    reason: str

    @property
    def cost(self) -> float:
        """Pixels of the input, in usual inputs; the time per image grows with it."""
        return math.prod(self.input_size) / _UNIT


def choose_input(sizes: Sequence[tuple[int, int]], max_tiles: int) -> InputChoice:
    """Choose the input size to which the images are stretched.

    Images that are all long in the same way get an input of their aspect ratio; others a square. Large images
    get an input of half their resolution, up to `max_tiles` times the pixels of the usual input.

    Args:
        sizes: (height, width) of the training images.
        max_tiles: limit of the input, in inputs of the usual size.
    """
    heights, widths = np.array(sizes, dtype=np.float64).T
    low, ratio, high = np.quantile(widths / heights, (0.1, 0.5, 0.9)).tolist()
    pixels = float(np.median(heights * widths)) / _REDUCTION
    alike = high <= _ALIKE_UP_TO * low
    is_long = alike and max(ratio, 1 / ratio) > _SQUARE_UP_TO
    size = _nearest(min(max(pixels, _UNIT), max_tiles * _UNIT), ratio if is_long else 1.0)
    return InputChoice(size, _describe(size, sizes, (low, high), pixels / _UNIT, max_tiles, is_long=is_long))


def _nearest(pixels: float, ratio: float) -> tuple[int, int]:
    """Return the (height, width) in whole steps with about these pixels and this width per height."""

    def error(size: tuple[int, int]) -> float:
        height, width = size
        # Distortion counts twice: a few pixels less cost less than another shape.
        return abs(math.log(height * width / pixels)) + 2 * abs(math.log(width / height / ratio))

    longest = math.isqrt(round(pixels * max(ratio, 1 / ratio)))
    sides = range(_STEP, min(longest + _STEP, _MAX_SIDE) + 1, _STEP)
    return min(((h, w) for h in sides for w in sides if h * w <= _ROUNDING * pixels), key=error)


def _describe(
    size: tuple[int, int],
    sizes: Sequence[tuple[int, int]],
    ratios: tuple[float, float],
    wanted: float,
    max_tiles: int,
    *,
    is_long: bool,
) -> str:
    """Say why an input was chosen; `wanted` is its area without limit, in usual inputs."""
    height, width = (round(side) for side in np.median(np.array(sizes), axis=0).tolist())
    images = f"images of {height} x {width} pixels"
    if ratios[1] > _ALIKE_UP_TO * ratios[0]:
        images = (
            f"images of about {height} x {width} pixels, width by height {ratios[0]:.2f} to {ratios[1]:.2f},"
        )
    usual, chosen = (f"{h} x {w}" for h, w in (DEFAULT_INPUT, size))
    if size == DEFAULT_INPUT:
        return f"{images} are stretched to {chosen}, the usual input"
    if (cost := math.prod(size) / _UNIT) <= _ROUNDING:
        why = f"as many pixels as {usual}"
    elif wanted <= max_tiles:
        why = f"half their resolution, within geometry.max_tiles: {max_tiles}"
    else:
        why = f"as many pixels as geometry.max_tiles: {max_tiles} allows"
    shape = "their aspect ratio" if is_long else "a square"
    return f"{images} are stretched to {chosen}: {shape}, {why}; {cost:.1f} times the time of {usual}"
