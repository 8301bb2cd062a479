"""Which positions of feature maps count for a picture's score."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.geometry import Layout


class _Axis(NamedTuple):
    """Positions of all tiles along one axis, one tile after the other.

    Attributes:
        own: whether they are their own tile's.
        centre: pixel of the picture's map that the centre of each cell lies in.
        inside: whether the picture has that pixel.
        begin: first pixel of each cell that the picture has.
        end: the one after the last.
    """

    own: NDArray[np.bool_]
    centre: NDArray[np.int64]
    inside: NDArray[np.bool_]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


def counted(
    layout: Layout, sides: Sequence[tuple[int, int]], region: NDArray[np.bool_] | None = None
) -> list[NDArray[np.bool_]] | None:
    """Which positions of a picture's tiles count: those that show it, and of several tiles' the one's alone.

    A position's cell is its share of the tile, which is divided evenly. It counts if the cell's centre lies
    in the picture and its region; where that is too small for any, if some pixel of the cell does. Where
    tiles overlap, a position is the tile's in whose half of the overlap its centre lies: the other tile sees
    less of what is around it.

    Args:
        layout: where picture and tiles lie.
        sides: (H_i, W_i) of each scale's map of a tile.
        region: of interest, (height, width) of the layout's size; by default the whole picture.

    Returns:
        Per scale (T, H_i, W_i), in the layout's order of tiles; None where all positions count.
    """
    if layout.is_whole and (region is None or region.all()):
        return None
    shown = np.ones(layout.size, np.bool_) if region is None else region
    found = []
    for side in sides:
        rows, columns = (
            _axis(starts, layout.tile[i], side[i], layout.before[i], layout.size[i])
            for i, starts in enumerate((layout.tops, layout.lefts))
        )
        own = rows.own[:, None] & columns.own
        counts = own & rows.inside[:, None] & columns.inside
        counts &= shown[rows.centre[:, None], columns.centre]
        if not counts.any():
            sums = cv2.integral(shown.view(np.uint8))
            low, high = sums[rows.begin], sums[rows.end]
            some = high[:, columns.end] - high[:, columns.begin] > low[:, columns.end] - low[:, columns.begin]
            counts = own & some
        # From rows and columns of all tiles to those of each.
        of_each = counts.reshape(len(layout.tops), side[0], len(layout.lefts), side[1]).swapaxes(1, 2)
        found.append(np.ascontiguousarray(of_each).reshape(-1, *side))
    return found


def _axis(starts: Sequence[int], tile: int, n: int, before: int, size: int) -> _Axis:
    first = np.asarray(starts)[:, None]
    centres = first + (np.arange(n) + 0.5) * tile / n
    borders = [(there + here + tile) / 2 for here, there in pairwise(starts)]
    after, until = np.asarray([[-np.inf, *borders], [*borders, np.inf]])[..., None]
    pixels = np.floor(centres).astype(np.int64) - before
    edges = np.arange(n + 1) * tile
    begin, end = first + edges[:-1] // n - before, first - (-edges[1:] // n) - before
    clipped = (np.clip(x, 0, most) for x, most in ((pixels, size - 1), (begin, size), (end, size)))
    own, inside = (after <= centres) & (centres < until), (pixels >= 0) & (pixels < size)
    centre, begin, end = (x.ravel() for x in clipped)
    return _Axis(own.ravel(), centre, inside.ravel(), begin, end)
