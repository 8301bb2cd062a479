"""Connected regions of a score map above a threshold.

Coordinates are those of :mod:`.region_masks`, and contours are polygons that `polygon_mask` accepts.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_MIN_SHARE = 1e-4  # smallest region, as a share of the image
_MAX_REGIONS = 32  # of an image, those with the highest peaks
_MAX_POINTS = 200  # of a contour
_THIN = 1.5  # pixels of the map
_MAX_BOX_RATIO = 3  # area of the rectangle around a straight thin region, over the region's
_TOLERANCE = 1.0  # pixels of the map, more than the height of the steps in a slanted outline


@dataclass(frozen=True)
class AnomalyRegion:
    """Connected region of anomalous pixels.

    Attributes:
        bbox: (x, y, width, height) of the smallest rectangle of whole pixels around it.
        contour: simplified outline of at least 3 points, without holes; it may differ from the region by a
            pixel of the map.
        area_px: area without holes.
        area_fraction: area as a share of the image.
        peak: highest value of the map in the region.
    """

    bbox: tuple[int, int, int, int]
    contour: list[tuple[int, int]]
    area_px: int
    area_fraction: float
    peak: float


def find_regions(
    score_map: NDArray[np.floating[Any]],
    threshold: float,
    image_size: tuple[int, int],
    counted: int | None = None,
) -> list[AnomalyRegion]:
    """Find the regions of a score map above a threshold, highest peak first.

    The search runs at the map's resolution, so memory and time do not grow with the image. Pixels that
    touch at a corner are connected. At most 32 regions are returned, those with the highest peaks, and
    none smaller than a ten thousandth of the image.

    Args:
        score_map: (h, w), of the whole image.
        threshold: regions lie where the map is above it.
        image_size: (H, W) of the image.
        counted: pixels that the ten thousandth refers to, by default those of the map; pass those of a
            tile to keep small defects of a large image.

    Raises:
        ValueError: the map is not two-dimensional, or one of its values or the threshold is not finite.
    """
    if score_map.ndim != 2 or score_map.size == 0:
        raise ValueError(f"a score map must be (h, w), without a batch; got {score_map.shape}")
    if not (math.isfinite(threshold) and np.isfinite(score_map).all()):
        raise ValueError("a score map and its threshold must be finite")
    if min(image_size) < 1:
        raise ValueError(f"image_size must be (height, width), each at least 1; got {image_size}")
    hot = score_map > threshold
    if not hot.any():  # most images
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot.view(np.uint8), connectivity=8)
    # Of the same dtype: numpy is ten times slower if it must convert.
    peaks = np.full(count, -np.inf, np.promote_types(score_map.dtype, np.float16))
    np.maximum.at(peaks, labels[hot].astype(np.intp), score_map[hot])
    areas = stats[:, cv2.CC_STAT_AREA]
    background, smallest = 0, _MIN_SHARE * min(hot.size, counted or hot.size)
    ranked = [i for i in np.argsort(-peaks, kind="stable") if i != background and areas[i] >= smallest]
    regions = []
    for i in ranked[:_MAX_REGIONS]:
        left, top, width, height = (int(v) for v in stats[i, : cv2.CC_STAT_AREA])
        own = labels[top : top + height, left : left + width] == i
        fraction = int(areas[i]) / hot.size
        bbox = _scaled((left, top, width, height), hot.shape, image_size)
        regions.append(
            AnomalyRegion(
                bbox=bbox,
                contour=_contour(_outline(own) + np.array([left, top]), bbox, hot.shape, image_size),
                area_px=max(1, round(fraction * image_size[0] * image_size[1])),
                area_fraction=fraction,
                peak=float(peaks[i]),
            )
        )
    return regions


def _scaled(
    box: tuple[int, int, int, int], size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Scale a box (x, y, width, height) of the map to the image, rounded outwards."""
    left, top, width, height = box
    (h, w), (image_height, image_width) = size, image_size
    x0, y0 = left * image_width // w, top * image_height // h
    x1 = -(-(left + width) * image_width // w)
    y1 = -(-(top + height) * image_height // h)
    return x0, y0, x1 - x0, y1 - y0


def _outline(own: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Trace and simplify the outer edge of a region (h, w): (n, 2) pixel corners (x, y)."""
    # OpenCV follows the centres of a region's outermost pixels. With pixels halved in both directions, each
    # of these centres lies next to a corner of a whole pixel.
    halved = cv2.resize(own.view(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(halved, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = ((contours[0].reshape(-1, 2) + 1) // 2).astype(np.float32)
    area = np.count_nonzero(own)
    if 2 * area < _THIN * cv2.arcLength(corners, True):
        # A region about as thin as the tolerance would collapse to a line.
        box = cv2.minAreaRect(corners)
        if math.prod(box[1]) < _MAX_BOX_RATIO * area:  # it is straight
            return np.asarray(cv2.boxPoints(box), np.float32)
        wider = cv2.dilate(np.pad(own, 1).view(np.uint8), np.ones((3, 3), np.uint8))
        return _outline(wider.view(np.bool_)) - 1
    tolerance = _TOLERANCE
    simple = cv2.approxPolyDP(corners, tolerance, True)
    while len(simple) > _MAX_POINTS:
        tolerance *= 2
        simple = cv2.approxPolyDP(corners, tolerance, True)
    fitted = simple if cv2.contourArea(simple) > 0 else cv2.boxPoints(cv2.minAreaRect(corners))
    return np.asarray(fitted, np.float32).reshape(-1, 2)


def _contour(
    outline: NDArray[np.floating[Any]],
    bbox: tuple[int, int, int, int],
    size: tuple[int, int],
    image_size: tuple[int, int],
) -> list[tuple[int, int]]:
    """Scale an outline of the map to a contour of the image, inside its box."""
    x, y, width, height = bbox
    scale = np.array([image_size[1] / size[1], image_size[0] / size[0]])
    points = np.rint(outline * scale).astype(np.int64).clip((x, y), (x + width, y + height))
    contour = [(a, b) for a, b in points.tolist()]
    distinct = [point for i, point in enumerate(contour) if point != contour[i - 1]]
    # The contour can be empty if the image is smaller than the map.
    if len(distinct) < 3 or cv2.contourArea(points.astype(np.float32)) == 0:
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return distinct
