"""Regions: which part of a picture is of interest, and where in it the anomalies are.

All coordinates are (x, y) in pixels of the uploaded picture (H, W), measured from its upper left corner: the
pixel of column i and row j is the square from (i, j) to (i + 1, j + 1), the whole picture that from (0, 0) to
(W, H). Contours found by :func:`find_regions` are polygons that :func:`mask` takes.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SPECK = 1e-4  # share of the picture below which a region is left out
_MOST = 32  # regions of a picture, those with the highest peaks
_POINTS = 200  # of a contour
_THIN = 1.5  # pixels of the map
_BOX = 3  # times the area of a thin region that is straight, at most, has the rectangle around it
_STEP = 1.0  # pixels of the map: the steps of a slanted outline stand out by less, whatever its angle


@dataclass(frozen=True)
class AnomalyRegion:
    """A connected region of anomalous pixels.

    Attributes:
        bbox: (x, y, width, height) of the smallest rectangle of whole pixels around it.
        contour: its outline, at least 3 points, without its holes; simplified, so that it may leave out or
            take in a pixel of the map here and there.
        area_px: its area, without its holes.
        area_fraction: the same as a share of the picture.
        peak: the highest value of the map in it.
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
    """The regions of a score map above a threshold, the highest peak first.

    They are found at the map's resolution, so that memory and time do not grow with the picture, and pixels
    that touch at a corner belong together. Regions smaller than a ten thousandth of the picture are left out,
    and so are all but the 32 with the highest peaks.

    Args:
        score_map: (h, w), of the whole picture.
        threshold: regions are where the map is above it.
        image_size: (H, W) of the picture.
        counted: pixels of the map of which a region must have a ten thousandth, instead of the whole map:
            those of a tile, lest a small defect be left out of a large picture.

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
    if not hot.any():  # most pictures
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot.view(np.uint8), connectivity=8)
    # Of the same type: where it has to convert, numpy is ten times slower.
    peaks = np.full(count, -np.inf, np.promote_types(score_map.dtype, np.float16))
    np.maximum.at(peaks, labels[hot].astype(np.intp), score_map[hot])
    areas = stats[:, cv2.CC_STAT_AREA]
    background, smallest = 0, _SPECK * min(hot.size, counted or hot.size)
    ranked = [i for i in np.argsort(-peaks, kind="stable") if i != background and areas[i] >= smallest]
    found = []
    for i in ranked[:_MOST]:
        left, top, width, height = (int(v) for v in stats[i, : cv2.CC_STAT_AREA])
        own = labels[top : top + height, left : left + width] == i
        fraction = int(areas[i]) / hot.size
        bbox = _scaled((left, top, width, height), hot.shape, image_size)
        found.append(
            AnomalyRegion(
                bbox=bbox,
                contour=_contour(_outline(own) + np.array([left, top]), bbox, hot.shape, image_size),
                area_px=max(1, round(fraction * image_size[0] * image_size[1])),
                area_fraction=fraction,
                peak=float(peaks[i]),
            )
        )
    return found


def _scaled(
    box: tuple[int, int, int, int], size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A box (x, y, width, height) of the map as whole pixels of the picture, rounded outwards."""
    left, top, width, height = box
    (h, w), (image_height, image_width) = size, image_size
    x0, y0 = left * image_width // w, top * image_height // h
    x1 = -(-(left + width) * image_width // w)
    y1 = -(-(top + height) * image_height // h)
    return x0, y0, x1 - x0, y1 - y0


def _outline(own: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The outer edge of a connected region (h, w), simplified: (n, 2) corners (x, y) of its pixels."""
    # OpenCV follows the centres of a region's outermost pixels. With pixels halved in both directions, each
    # of those lies next to a corner of a whole one.
    halved = cv2.resize(own.view(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(halved, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = ((contours[0].reshape(-1, 2) + 1) // 2).astype(np.float32)
    area = np.count_nonzero(own)
    if 2 * area < _THIN * cv2.arcLength(corners, True):
        # About as thin as a step, it would collapse to a line, there and back.
        box = cv2.minAreaRect(corners)
        if math.prod(box[1]) < _BOX * area:  # it is straight
            return np.asarray(cv2.boxPoints(box), np.float32)
        wider = cv2.dilate(np.pad(own, 1).view(np.uint8), np.ones((3, 3), np.uint8))
        return _outline(wider.view(np.bool_)) - 1
    tolerance = _STEP
    simple = cv2.approxPolyDP(corners, tolerance, True)
    while len(simple) > _POINTS:
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
    """An outline on the map as a contour in the picture, inside its box."""
    x, y, width, height = bbox
    scale = np.array([image_size[1] / size[1], image_size[0] / size[0]])
    points = np.rint(outline * scale).astype(np.int64).clip((x, y), (x + width, y + height))
    found = [(a, b) for a, b in points.tolist()]
    distinct = [point for i, point in enumerate(found) if point != found[i - 1]]
    # Nothing is inside where the picture is smaller than the map.
    if len(distinct) < 3 or cv2.contourArea(points.astype(np.float32)) == 0:
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return distinct
