"""What an anomaly map is turned into: pictures, a file, the regions above the pixel threshold."""

import io
import math
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.schemas.predict import Region
from flows.fastflow import heatmap, regions
from flows.fastflow.heatmap import ColourScale

Drawing = Literal["overlay", "heatmap", "map"]
Files = Mapping[Drawing, bytes]


class Explanation(NamedTuple):
    """Files of a map, its regions if they were asked for, and the share of it above the pixel threshold."""

    files: Files
    regions: list[Region] | None
    area_fraction: float


def explain(
    score_map: NDArray[np.float32],
    scale: ColourScale,
    size: tuple[int, int],
    pixels: NDArray[np.uint8] | None,
    drawings: Collection[Drawing],
    input_size: tuple[int, int] | None,
) -> Explanation:
    """Draw, and find the regions above the pixel threshold, the middle of the colour scale.

    Args:
        score_map: (h, w).
        scale: of the colours.
        size: (H, W) of the upload.
        pixels: the upload, (H, W, 3); only an overlay needs it.
        drawings: to make: PNGs of the upload's size, or the float32 map as .npy.
        input_size: of the model; None for no regions.

    Raises:
        ValueError: a value of the map is not finite.
    """
    if not np.isfinite(score_map).all():
        raise ValueError("a score map must be finite")
    found = None
    if input_size is not None:
        hot = regions.find(score_map, scale.middle, size, math.prod(input_size))
        found = [Region.model_validate(region, from_attributes=True) for region in hot]
    files: dict[Drawing, bytes] = {}
    if "overlay" in drawings and pixels is not None:
        files["overlay"] = heatmap.encode_png(heatmap.overlay(pixels, score_map, scale))
    if "heatmap" in drawings:
        files["heatmap"] = heatmap.encode_png(heatmap.colours(score_map, scale, size))
    if "map" in drawings:
        file = io.BytesIO()
        np.save(file, score_map.astype(np.float32, copy=False), allow_pickle=False)
        files["map"] = file.getvalue()
    return Explanation(files, found, float((score_map > scale.middle).mean()))
