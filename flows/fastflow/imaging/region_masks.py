"""Masks of regions of interest.

All coordinates are (x, y) in pixels of the uploaded image (H, W), measured from its upper left corner: the
pixel of column i and row j is the square from (i, j) to (i + 1, j + 1), and the whole image the rectangle
from (0, 0) to (W, H).
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Polygons: TypeAlias = Sequence[Sequence[tuple[float, float]]]
# Per image the mask of its region of interest, (height, width) bool of the size of its map, or None.
RegionMasks: TypeAlias = Sequence[NDArray[np.bool_] | None]
# Beyond any image, and small enough that products of two coordinates stay exact to a pixel.
_MAX_COORDINATE = 1e6


def polygon_mask(polygons: Polygons, image_size: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels of a model's input whose centres lie inside a polygon.

    Polygons may overlap and reach beyond the image; the even-odd rule decides about one that crosses
    itself. A region much smaller than the share of pixels that a score averages (`ScoreRule`) hardly
    reaches a threshold for whole images.

    Args:
        polygons: at least one, of at least 3 points each.
        image_size: (H, W) of the image that the coordinates refer to.
        size: (h, w) of the model's input.

    Returns:
        (h, w), True inside.

    Raises:
        ValueError: a polygon has fewer than 3 points, a coordinate is not finite or too large, or no pixel
            is inside, so every part would pass.
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
            if not all(abs(c) <= _MAX_COORDINATE for c in point):  # NaN fails too
                raise ValueError(
                    f"polygon {number} has the point {tuple(point)}; coordinates are pixels, at most "
                    f"{_MAX_COORDINATE:.0f} from 0"
                )
        inside |= _inside(np.asarray(polygon, np.float64), x, y)
    if not inside.any():
        raise ValueError(
            f"no pixel of the model's input ({h} high, {w} wide) lies inside the region of interest; "
            f"its coordinates must be pixels of an image {height} high and {width} wide"
        )
    return inside


def _centres(n: int, length: int) -> NDArray[np.float64]:
    """Return the centres of n pixels that divide a length."""
    return (np.arange(n, dtype=np.float64) + 0.5) * (length / n)


def _inside(points: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the points of a grid inside a polygon: an odd number of edges lies to their left."""
    crossings = np.zeros((len(y), len(x) + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        at = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
        crossings[rows, np.searchsorted(x, at)] += 1
    odd: NDArray[np.bool_] = crossings[:, :-1].cumsum(1) % 2 == 1
    return odd


def masks_per_image(regions: RegionMasks | None, n: int) -> RegionMasks:
    """Return one mask or None for each of n images.

    Raises:
        ValueError: the number of masks is not n.
    """
    if regions is None:
        return [None] * n
    if len(regions) != n:
        raise ValueError(f"expected a region or None for each of {n} images; got {len(regions)}")
    return regions


def require_usable_masks(regions: RegionMasks, size: tuple[int, int]) -> None:
    """Check the masks of maps of a size, (height, width).

    Raises:
        ValueError: a mask has another shape or dtype, or no pixel.
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
