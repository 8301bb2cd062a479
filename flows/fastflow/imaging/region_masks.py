"""Masks of regions of interest."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Polygons: TypeAlias = Sequence[Sequence[tuple[float, float]]]
# Per picture its region of interest, (height, width) bool at the size of its map, or None for everything.
RegionMasks: TypeAlias = Sequence[NDArray[np.bool_] | None]
# Far beyond any picture, and near enough that no product of two coordinates loses a pixel.
_FARTHEST = 1e6


def polygon_mask(polygons: Polygons, image_size: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a model's input whose centres lie inside a polygon.

    Polygons may reach beyond the picture and overlap; the inside of one that crosses itself is that of the
    even-odd rule. A region much smaller than the share of pixels that a score averages (`ScoreRule`) can
    hardly reach a threshold set on whole pictures.

    Args:
        polygons: at least one, of at least 3 points each.
        image_size: (H, W) of the picture that their coordinates refer to.
        size: (h, w) of the model's input.

    Returns:
        (h, w), True inside.

    Raises:
        ValueError: a polygon has fewer than 3 points, a coordinate is no position in a picture, or no pixel
            is inside, so that every part would pass.
    """
    if not polygons:
        raise ValueError("a region of interest needs at least one polygon")
    (height, width), (h, w) = image_size, size
    if min(height, width, h, w) < 1:
        raise ValueError(f"sizes must be (height, width), each at least 1; got {image_size} and {size}")
    y, x = _centres(h, height), _centres(w, width)
    inside = np.zeros(size, np.bool_)
    for number, polygon in enumerate(polygons, 1):
        if len(polygon) < 3:
            raise ValueError(f"polygon {number} needs at least 3 points; got {len(polygon)}")
        for point in polygon:
            if not all(abs(c) <= _FARTHEST for c in point):  # nor is NaN
                raise ValueError(
                    f"polygon {number} has the point {tuple(point)}; coordinates are pixels, at most "
                    f"{_FARTHEST:.0f} from 0"
                )
        inside |= _inside(np.asarray(polygon, np.float64), x, y)
    if not inside.any():
        raise ValueError(
            f"no pixel of the model's input ({h} high, {w} wide) lies inside the region of interest; "
            f"its coordinates must be pixels of a picture {height} high and {width} wide"
        )
    return inside


def _centres(n: int, length: int) -> NDArray[np.float64]:
    """Centres of n pixels that share a length."""
    return (np.arange(n, dtype=np.float64) + 0.5) * (length / n)


def _inside(points: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which (x, y) of a grid lie inside a polygon: those with an odd number of its edges to their left."""
    crossings = np.zeros((len(y), len(x) + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        at = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
        crossings[rows, np.searchsorted(x, at)] += 1
    odd: NDArray[np.bool_] = crossings[:, :-1].cumsum(1) % 2 == 1
    return odd


def masks_per_image(regions: RegionMasks | None, n: int) -> RegionMasks:
    """The regions of n pictures; None of each where there are none at all.

    Raises:
        ValueError: there are not n.
    """
    if regions is None:
        return [None] * n
    if len(regions) != n:
        raise ValueError(f"expected a region or None for each of {n} pictures; got {len(regions)}")
    return regions


def require_usable_masks(regions: RegionMasks, size: tuple[int, int]) -> None:
    """Check regions of maps of a size, (height, width).

    Raises:
        ValueError: one has another shape or type, or no pixel.
    """
    for region in regions:
        if region is None:
            continue
        if region.shape != size or region.dtype != np.bool_:
            raise ValueError(
                f"a region must be bool of the size of the map, {size}; "
                f"got {region.dtype} of shape {region.shape}"
            )
        if not region.any():
            raise ValueError("a region without a pixel would pass every part")
