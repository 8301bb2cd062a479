"""The tiles of the training images that the flows are fitted to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flows.fastflow.config import Geometry
from flows.fastflow.imaging.geometry import compute_layout
from training.data.augment import Variant
from training.data.pinned_images import PinnedImage, size_of

# The fractional part of its multiples fills an interval evenly, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


class Tile(NamedTuple):
    """A row of the features: the tile of an image, both by their numbers from 0."""

    image: int
    number: int


@dataclass(frozen=True)
class TrainingTile:
    """A tile of an image, as it is or changed, whose features are computed.

    Attributes:
        path: the image's file.
        sha256: of the file: the cache is keyed by content, not by name or time.
        image: number of the image among those of the run.
        variant: how it is changed, or None.
        tile: number of the tile; 0, the only one, of an image that is not tiled.
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
    most: int,
) -> list[Tile]:
    """The tiles to fit to, image by image; the only one of each, where images are not tiled.

    Of an image of more than `most` tiles so many are taken, evenly over it, and others of the next image,
    so that all places of a part are learned.

    Args:
        images: their headers are read for their sizes where they are tiled.
        geometry: how they are brought to the input size.
        input_size: (height, width) of a tile.
        strides: of the backbone's maps.
        most: tiles of an image.

    Raises:
        ImageError: an image cannot be decoded, as far as its header tells; it is named.
        DatasetError: its file is gone or was changed; it is named.
    """
    if geometry.fit != "tile":
        return [Tile(image, 0) for image in range(len(images))]
    chosen = []
    for image, pinned in enumerate(images):
        n = len(compute_layout(geometry, size_of(pinned), input_size, strides))
        taken = min(n, most)
        first = image * _GOLDEN % 1
        chosen += [Tile(image, int((i + first) * n / taken)) for i in range(taken)]
    return chosen
