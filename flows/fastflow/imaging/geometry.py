"""Layout of an image of any size before a model of one input size.

An image is scaled, surrounded by its own reflection where tiles reach beyond it, and cut into tiles of the
input size. :mod:`.blending` combines the energies of the tiles and crops them to the image: a map covers
exactly the image, and reflected pixels do not count for a score.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.config import MAX_SIDE, Geometry, Shrink
from flows.fastflow.imaging.resizing import resize


@dataclass(frozen=True)
class TileLayout:
    """Positions of an image and its tiles before the model.

    Attributes:
        size: (height, width) at which the model sees the image, and size of its map.
        before: (rows, columns) of reflected pixels above the image and to its left.
        tops: first rows of the tiles, rising from 0, in the image with its reflection.
        lefts: first columns, likewise; there is a tile for each top and left, row by row.
        tile: (height, width) of a tile, the model's input size.
        shrink: reduction of a larger image, see `resizing.resize`.
    """

    size: tuple[int, int]
    before: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    tile: tuple[int, int]
    shrink: Shrink

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the image with its reflection."""
        return self.tops[-1] + self.tile[0], self.lefts[-1] + self.tile[1]

    @property
    def is_whole(self) -> bool:
        """True if the image fills one tile to its edges."""
        return self.size == self.tile and len(self) == 1  # a margin needs several tiles

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that are the image."""
        (top, left), (height, width) = self.before, self.size
        return slice(top, top + height), slice(left, left + width)

    def corners(self) -> Iterator[tuple[int, int]]:
        """(top, left) of each tile, in order."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def prepare(self, image: NDArray[np.uint8]) -> "PreparedImage":
        """Scale an image (H, W, 3) and surround it by its reflection."""
        pixels = resize(image, self.size, self.shrink)
        (top, left), (height, width) = self.before, self.canvas
        bottom, right = height - top - self.size[0], width - left - self.size[1]
        if any((top, bottom, left, right)):
            # OpenCV reflects as often as necessary, even an image of one pixel.
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_REFLECT_101), dtype=np.uint8
            )
        return PreparedImage(pixels, self)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """Image scaled and padded for the model.

    Attributes:
        pixels: (height, width, 3) uint8, of the layout's canvas.
        layout: positions of the image and the tiles in the canvas.
    """

    pixels: NDArray[np.uint8]
    layout: TileLayout

    def tiles(self) -> list[NDArray[np.uint8]]:
        """Cut the tiles, each (h, w, 3) uint8; they share the memory of the pixels."""
        h, w = self.layout.tile
        return [self.pixels[top : top + h, left : left + w] for top, left in self.layout.corners()]

    @property
    def nbytes(self) -> int:
        """Bytes in memory, for several tiles with the bytes of the future map."""
        several = len(self.layout) > 1
        return self.pixels.nbytes + (4 * math.prod(self.layout.size) if several else 0)


def compute_layout(
    geometry: Geometry, image_size: tuple[int, int], input_size: tuple[int, int], strides: Sequence[int]
) -> TileLayout:
    """Compute the layout of an image.

    Args:
        image_size: (H, W) of the image.
        input_size: (height, width) of a tile.
        strides: strides of the backbone's maps. Tiles begin at multiples of all of them if possible, so
            features have the same positions in overlapping tiles.

    Raises:
        ValueError: a side is less than a pixel, or the margins leave too little of the input.
    """
    if min(image_size) < 1:
        raise ValueError(f"an image must be (height, width), each at least 1; got {image_size}")
    geometry.require_room(input_size)
    inner = input_size[0] - 2 * geometry.margin, input_size[1] - 2 * geometry.margin
    size = inner if geometry.fit == "stretch" else _scaled(geometry, image_size, inner)
    align = math.lcm(*strides)
    axes = [_axis(geometry, side, tile, align) for side, tile in zip(size, input_size, strict=True)]
    return TileLayout(
        size=size,
        before=(axes[0][0], axes[1][0]),
        tops=axes[0][1],
        lefts=axes[1][1],
        tile=input_size,
        shrink=geometry.shrink,
    )


def _scaled(geometry: Geometry, image_size: tuple[int, int], inner: tuple[int, int]) -> tuple[int, int]:
    """Scale the image's size in its aspect ratio, each side at least a pixel."""
    if geometry.fit == "pad":
        scale = min(inner[0] / image_size[0], inner[1] / image_size[1])
        limits = zip(image_size, inner, strict=True)
        sides = [max(1, min(limit, round(scale * side))) for side, limit in limits]
        return sides[0], sides[1]
    scale = 1.0 if geometry.scale is None else geometry.scale
    if geometry.working_size is not None:
        scale = geometry.working_size / max(image_size)
    scale = min(scale, math.sqrt(geometry.max_pixels / math.prod(image_size)), MAX_SIDE / max(image_size))
    # A side that is raised to one pixel must not bring the image above the limit of pixels.
    sides = [max(1, round(scale * side)) for side in image_size]
    return min(sides[0], geometry.max_pixels // min(sides)), min(sides[1], geometry.max_pixels // min(sides))


def _axis(geometry: Geometry, side: int, tile: int, align: int) -> tuple[int, tuple[int, ...]]:
    """Lay out one axis: reflected pixels before the image, and starts of the tiles."""
    covered = side + 2 * geometry.margin
    if covered <= tile:
        return (tile - side) // 2, (0,)
    max_step = max(1, math.floor(tile * (1 - geometry.overlap)))
    unit = align if align <= max_step else 1
    max_step -= max_step % unit
    steps = math.ceil((covered - tile) / max_step)
    step = math.ceil((covered - tile) / steps / unit) * unit  # even steps reflect the fewest pixels
    return (tile + steps * step - side) // 2, tuple(range(0, steps * step + 1, step))
