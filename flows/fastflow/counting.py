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
        begin: first pixel of the picture's map in each cell.
        end: the one after the last.
    """

    own: NDArray[np.bool_]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


def counted(
    layout: Layout, sides: Sequence[tuple[int, int]], region: NDArray[np.bool_] | None = None
) -> list[NDArray[np.bool_]] | None:
    """Which positions of a picture's tiles count: those that show it, and of several tiles' the one's alone.

    A position shows its cell, its share of the tile, which is divided evenly. It counts if a pixel of the
    cell is in the picture and its region: so no place of a region goes unseen at any scale, and a smaller
    region never has a position that a larger one has not. Where tiles overlap, a position is the tile's in
    whose half of the overlap its centre lies: the other tile sees less of what is around it. Where cells of
    tiles do not coincide, both have those at the border.

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
    sums = cv2.integral(shown.view(np.uint8))
    found = []
    for side in sides:
        rows, columns = (
            _axis(starts, layout.tile[i], side[i], layout.before[i], layout.size[i])
            for i, starts in enumerate((layout.tops, layout.lefts))
        )
        low, high = sums[rows.begin], sums[rows.end]
        some = high[:, columns.end] - high[:, columns.begin] > low[:, columns.end] - low[:, columns.begin]
        counts = rows.own[:, None] & columns.own & some
        # From rows and columns of all tiles to those of each.
        of_each = counts.reshape(len(layout.tops), side[0], len(layout.lefts), side[1]).swapaxes(1, 2)
        found.append(np.ascontiguousarray(of_each).reshape(-1, *side))
    return found


def _axis(starts: Sequence[int], tile: int, n: int, before: int, size: int) -> _Axis:
    first = np.asarray(starts)[:, None]
    edges = np.arange(n + 1) * tile
    begin = np.clip(first + edges[:-1] // n - before, 0, size)
    end = np.clip(first - (-edges[1:] // n) - before, 0, size)
    centres = first + (np.arange(n) + 0.5) * tile / n
    borders = [(there + here + tile) / 2 for here, there in pairwise(starts)]
    coincide = all(start * n % tile == 0 for start in starts)
    slack = 0.0 if coincide else tile / n / 2
    after, until = np.asarray([[-np.inf, *borders], [*borders, np.inf]])[..., None]
    own = (after - slack <= centres) & (centres < until + slack)
    return _Axis(own.ravel(), begin.ravel(), end.ravel())
