"""The tiles of the training images for the fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flows.fastflow.config import Geometry
from flows.fastflow.imaging.geometry import compute_layout
from training.data.augment import Variant
from training.data.pinned_images import PinnedImage, size_of

# The fractional parts of its multiples fill an interval evenly, for any count.
_GOLDEN = (math.sqrt(5) - 1) / 2


class Tile(NamedTuple):
    """A tile of an image, both as numbers from 0."""

    image: int
    number: int


@dataclass(frozen=True)
class TrainingTile:
    """A tile of an image or of its changed copy, for the features.

    Attributes:
        sha256: digest of the file; the cache is keyed by content, not by name or time.
        image: number of the image in the run.
        tile: number of the tile; 0 for an image that is not tiled.
    """

    path: Path
    sha256: str
    image: int
    variant: Variant | None = None
    tile: int = 0


def choose_tiles(
    images: Sequence[PinnedImage],
    geometry: Geometry,
    input_size: tuple[int, int],
    strides: Sequence[int],
    max_tiles: int,
) -> list[Tile]:
    """Choose the tiles to fit, image by image; one per image without tiling.

    Large images give `max_tiles` tiles, spaced evenly. Their positions shift from image to image, so that the
    fit covers all places of a part.

    Args:
        images: images; with tiling, their headers are read for their sizes.
        geometry: fit of images to the input size.
        input_size: (height, width) of a tile.

    Raises:
        ImageError: a header cannot be read; the image is named.
        DatasetError: its file is gone or was changed; it is named.
    """
    if geometry.fit != "tile":
        return [Tile(image, 0) for image in range(len(images))]
    chosen = []
    for image, pinned in enumerate(images):
        n = len(compute_layout(geometry, size_of(pinned), input_size, strides))
        taken = min(n, max_tiles)
        first = image * _GOLDEN % 1
        chosen += [Tile(image, int((i + first) * n / taken)) for i in range(taken)]
    return chosen
