"""How a picture of any size meets a model of one input size: stretched, padded, or covered by tiles.

A picture is scaled, surrounded by its own reflection where the tiles reach beyond it, and cut into tiles of
the input size. What the model says of the tiles is put together again (:mod:`.blending`) and cropped to the
picture, so that a map covers exactly the picture and no reflected pixel counts for a score.
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
    """Where a picture lies before the model.

    Attributes:
        size: (height, width) at which the model sees the picture, which is that of its map.
        before: (rows, columns) of reflected pixels above it and to its left.
        tops: first rows of the tiles, rising from 0, in the picture with its reflection.
        lefts: first columns, likewise; there is a tile for each top and left, row by row.
        tile: (height, width) of a tile, the model's input size.
        shrink: how a larger picture is reduced, see `resizing.resize`.
    """

    size: tuple[int, int]
    before: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    tile: tuple[int, int]
    shrink: Shrink

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tops) * len(self.lefts)

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the picture with its reflection."""
        return self.tops[-1] + self.tile[0], self.lefts[-1] + self.tile[1]

    @property
    def is_whole(self) -> bool:
        """Whether the picture fills one tile to its edges."""
        return self.size == self.tile and len(self) == 1  # with a margin it takes several

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that are the picture."""
        (top, left), (height, width) = self.before, self.size
        return slice(top, top + height), slice(left, left + width)

    def corners(self) -> Iterator[tuple[int, int]]:
        """(top, left) of each tile, in order."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def prepare(self, image: NDArray[np.uint8]) -> "PreparedImage":
        """Scale a picture (H, W, 3) and surround it by its reflection."""
        pixels = resize(image, self.size, self.shrink)
        (top, left), (height, width) = self.before, self.canvas
        bottom, right = height - top - self.size[0], width - left - self.size[1]
        if any((top, bottom, left, right)):
            # As often as it takes: a picture one pixel wide is repeated.
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_REFLECT_101), dtype=np.uint8
            )
        return PreparedImage(pixels, self)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A picture as the model takes it.

    Attributes:
        pixels: (height, width, 3) uint8, of the layout's canvas.
        layout: where the picture and the tiles are in it.
    """

    pixels: NDArray[np.uint8]
    layout: TileLayout

    def tiles(self) -> list[NDArray[np.uint8]]:
        """The tiles, each (h, w, 3) uint8; they share the memory of the pixels."""
        h, w = self.layout.tile
        return [self.pixels[top : top + h, left : left + w] for top, left in self.layout.corners()]

    @property
    def nbytes(self) -> int:
        """Bytes in memory; of a picture of several tiles with those of the map to be made of it."""
        several = len(self.layout) > 1
        return self.pixels.nbytes + (4 * math.prod(self.layout.size) if several else 0)


def compute_layout(
    geometry: Geometry, image_size: tuple[int, int], input_size: tuple[int, int], strides: Sequence[int]
) -> TileLayout:
    """Where a picture lies before the model.

    Args:
        image_size: (H, W) of the picture.
        input_size: (height, width) of a tile.
        strides: of the backbone's maps; tiles begin at multiples of all of them where they can, so that
            features have the same positions in tiles that overlap.

    Raises:
        ValueError: a side is less than a pixel, or the margins leave too little.
    """
    if min(image_size) < 1:
        raise ValueError(f"a picture must be (height, width), each at least 1; got {image_size}")
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
    """The picture's size before the model, in its aspect ratio, each side at least a pixel."""
    if geometry.fit == "pad":
        scale = min(inner[0] / image_size[0], inner[1] / image_size[1])
        sides = [max(1, min(most, round(scale * side))) for side, most in zip(image_size, inner, strict=True)]
        return sides[0], sides[1]
    scale = 1.0 if geometry.scale is None else geometry.scale
    if geometry.working_size is not None:
        scale = geometry.working_size / max(image_size)
    scale = min(scale, math.sqrt(geometry.max_pixels / math.prod(image_size)), MAX_SIDE / max(image_size))
    # Never rounded up to where a side of a pixel would make it more pixels than are allowed.
    sides = [max(1, round(scale * side)) for side in image_size]
    return min(sides[0], geometry.max_pixels // min(sides)), min(sides[1], geometry.max_pixels // min(sides))


def _axis(geometry: Geometry, side: int, tile: int, align: int) -> tuple[int, tuple[int, ...]]:
    """Of one axis: the reflected pixels before the picture, and where the tiles begin."""
    wanted = side + 2 * geometry.margin
    if wanted <= tile:
        return (tile - side) // 2, (0,)
    most = max(1, math.floor(tile * (1 - geometry.overlap)))
    unit = align if align <= most else 1
    most -= most % unit
    steps = math.ceil((wanted - tile) / most)
    step = math.ceil((wanted - tile) / steps / unit) * unit  # as even as they can be: least is reflected
    return (tile + steps * step - side) // 2, tuple(range(0, steps * step + 1, step))
