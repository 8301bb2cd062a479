"""Heatmaps and overlays of score maps, on a colour scale that calibration fixes for all images.

A scale stretched per image would paint the worst pixel of every good part bright. On this scale typical
scores of good parts are dark, the pixel threshold has the middle colour, and worse parts are brighter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.imaging.resizing import resize

# Positions on the colour bar: the tint of an overlay begins half-way to the pixel threshold and is full at
# the threshold. Good parts stay as they are but for a slight tint of their most unusual spots, and the
# opacity leaves a defect visible under its colour.
_TINT_FROM, _TINT_FULL, _MAX_OPACITY = 0.25, 0.5, 0.6

# Pixels that are drawn at a time: intermediate results then take megabytes for any size of image.
_STRIP_PIXELS = 2**18


@dataclass(frozen=True)
class ColourScale:
    """Scale from map values to positions on the colour bar: ``low`` at 0, ``middle`` at 0.5.

    ``middle`` is the pixel threshold; position 1 is 2 middle - low. The colour does not change beyond
    either end.

    Raises:
        ValueError: low is not below middle, or one of them is not finite.
    """

    low: float
    middle: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.middle) and self.low < self.middle):
            raise ValueError(
                "a colour scale needs finite values with low < middle; "
                f"got low {self.low} and middle {self.middle}"
            )


def render_heatmap(
    score_map: NDArray[np.floating[Any]], scale: ColourScale, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Draw a score map (h, w) as uint8 RGB (H, W, 3) in the colours of inferno.

    Args:
        score_map: one anomaly score per pixel.
        scale: colour scale.
        size: (H, W) of the result, by default that of the map. Scores are interpolated, not colours.

    Raises:
        ValueError: the map is not two-dimensional, or holds NaN or infinity.
    """
    scores = _scores(score_map, size)
    result = np.empty((*scores.shape, 3), dtype=np.uint8)
    for rows in _strips(scores.shape):
        result[rows] = _inferno(_heat(scores[rows], scale))
    return result


def render_overlay(
    image: NDArray[np.uint8], score_map: NDArray[np.floating[Any]], scale: ColourScale
) -> NDArray[np.uint8]:
    """Lay the heatmap over the anomalous areas of an image (H, W, 3).

    Pixels stay unchanged up to half-way between typical scores of good parts and the pixel threshold. From
    there to the threshold the opacity grows smoothly to 0.6. So good parts have hardly any tint, and only
    where they score unusually high.

    Memory: the result, and the scores at its size as float32.

    Raises:
        ValueError: as :func:`render_heatmap`, or the image is not RGB.
    """
    require_rgb(image)
    scores = _scores(score_map, image.shape[:2])
    result = np.array(image, order="C")
    for rows in _strips(scores.shape):
        heat = _heat(scores[rows], scale)
        if not (heat > _TINT_FROM).any():  # most strips of most images
            continue
        ramp = np.clip((heat - _TINT_FROM) / (_TINT_FULL - _TINT_FROM), 0, 1)
        opacity = _MAX_OPACITY * ramp**2 * (3 - 2 * ramp)  # smoothstep: no edge where the tint begins
        below = result[rows].astype(np.float32)
        result[rows] = np.rint(below + opacity[..., None] * (_inferno(heat) - below))
    return result


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode an RGB image (H, W, 3) as a PNG file.

    Raises:
        ValueError: the image is not RGB.
    """
    require_rgb(rgb)
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {rgb.shape} as PNG")
    return data.tobytes()


def _scores(score_map: NDArray[np.floating[Any]], size: tuple[int, int] | None) -> NDArray[np.float32]:
    """Resize the map's scores to a size (H, W), by default its own."""
    if score_map.ndim != 2 or score_map.size == 0:
        raise ValueError(f"a score map must be (h, w), without a batch; got {score_map.shape}")
    bad = int(score_map.size - np.count_nonzero(np.isfinite(score_map)))
    if bad:
        raise ValueError(f"a score map must be finite; {bad} of {score_map.size} scores are not")
    scores = score_map.astype(np.float32)
    return scores if size is None else resize(scores, size)


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slice the rows of an image (H, W), a few at a time."""
    step = max(1, _STRIP_PIXELS // shape[1])
    for top in range(0, shape[0], step):
        yield slice(top, top + step)


def _heat(scores: NDArray[np.float32], scale: ColourScale) -> NDArray[np.float32]:
    """Compute positions on the colour bar, in [0, 1]."""
    heat: NDArray[np.float32] = (scores - scale.low) / (2 * (scale.middle - scale.low))
    return np.clip(heat, 0, 1, out=heat)


def _inferno(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels = np.rint(heat * 255).astype(np.uint8)
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def require_rgb(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image must be uint8 RGB (H, W, 3); got {image.dtype} {image.shape}")
