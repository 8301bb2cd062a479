"""Settings of the geometry, and the choice of the input size from the images: `geometry.fit: auto`."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final, Literal, NamedTuple

from pydantic import Field

from flows.fastflow.config import Geometry, GeometrySettings

DEFAULT_INPUT: Final = (256, 256)
USUAL_BATCH: Final = 8
_USUAL_SIDE: Final = 256
_MAX_SIDE: Final = 4096
_STEP: Final = 32  # the coarsest stride of the backbones that are convolutional networks
# Single pixels of a camera hold little: a colour sensor measures one colour at each, and JPEG halves colours.
_REDUCTION: Final = 2


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
        le=32,
        description="`auto`: most pixels of the input, and so time per image, in multiples of 256 x 256",
    )

    def resolved(self) -> Geometry:
        """Return the geometry that a bundle records; `auto` stretches."""
        values = self.model_dump(exclude={"max_tiles"})
        return Geometry(**(values | {"fit": "stretch"} if self.fit == "auto" else values))


class InputChoice(NamedTuple):
    """The (height, width) of the input for a set of images, with the reason."""

    input_size: tuple[int, int]
    reason: str


def choose_input(sizes: Sequence[tuple[int, int]], max_tiles: int) -> InputChoice:
    """Choose the input size to which the images are stretched.

    Each side has half the pixels of the images' side, by the median, and at least those of the usual input.
    Beyond `max_tiles` both sides are reduced towards the usual ones, the larger by more.

    Args:
        sizes: (height, width) of the training images.
        max_tiles: limit of the input's pixels, in usual inputs.
    """
    sides = [median(of_all) for of_all in zip(*sizes, strict=True)]
    wanted = [min(max(1.0, side / _REDUCTION / _USUAL_SIDE), _MAX_SIDE / _USUAL_SIDE) for side in sides]
    excess = math.prod(wanted) > max_tiles
    exponent = math.log(max_tiles) / math.log(math.prod(wanted)) if excess else 1.0
    height, width = (_whole_steps(factor**exponent) for factor in wanted)
    reason = f"images of {sides[0]:.0f} x {sides[1]:.0f} pixels are stretched to {height} x {width}"
    if (height, width) != DEFAULT_INPUT:
        cost = height * width / math.prod(DEFAULT_INPUT)
        why = (
            f"the most that geometry.max_tiles: {max_tiles} allows" if excess else "half of each larger side"
        )
        usual = f"{DEFAULT_INPUT[0]} x {DEFAULT_INPUT[1]}"
        reason += f", {why}; inference takes about {cost:.1f} times as long as with {usual}"
    return InputChoice((height, width), reason)


def choose_batch_size(input_size: tuple[int, int]) -> int:
    """Choose the images per update: as many positions as in the usual batch of usual inputs."""
    share = math.prod(DEFAULT_INPUT) / math.prod(input_size)
    return max(1, round(USUAL_BATCH * min(1, share)))


def _whole_steps(factor: float) -> int:
    """Round a multiple of the usual side down to whole steps; a little less than a step counts."""
    return math.floor(_USUAL_SIDE * factor / _STEP + 0.25) * _STEP
