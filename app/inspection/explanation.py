"""Explanation of an anomaly map: drawings, regions and the anomalous share of the area."""

import io
import math
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.schemas.predict import Region
from flows.fastflow.imaging import anomaly_regions, heatmap
from flows.fastflow.imaging.heatmap import ColourScale

Drawing = Literal["overlay", "heatmap", "map"]
DrawingFiles = Mapping[Drawing, bytes]


class Explanation(NamedTuple):
    """Drawings, regions (None if not requested), and the share of the map above the pixel threshold."""

    files: DrawingFiles
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
    """Draw a score map, and find its regions above the pixel threshold.

    Args:
        score_map: anomaly scores, (h, w).
        scale: colour scale; its middle is the pixel threshold.
        size: size of the upload, (H, W).
        pixels: the upload, (H, W, 3); only an overlay needs it.
        drawings: drawings to make: PNGs of the upload's size, or the float32 map as .npy.
        input_size: input size of the model; None for no regions.

    Raises:
        ValueError: a value of the map is not finite.
    """
    if not np.isfinite(score_map).all():
        raise ValueError("a score map must be finite")
    found_regions = None
    if input_size is not None:
        regions = anomaly_regions.find_regions(score_map, scale.middle, size, math.prod(input_size))
        found_regions = [Region.model_validate(region, from_attributes=True) for region in regions]
    files: dict[Drawing, bytes] = {}
    if "overlay" in drawings and pixels is not None:
        files["overlay"] = heatmap.encode_png(heatmap.render_overlay(pixels, score_map, scale))
    if "heatmap" in drawings:
        files["heatmap"] = heatmap.encode_png(heatmap.render_heatmap(score_map, scale, size))
    if "map" in drawings:
        file = io.BytesIO()
        np.save(file, score_map.astype(np.float32, copy=False), allow_pickle=False)
        files["map"] = file.getvalue()
    return Explanation(files, found_regions, float((score_map > scale.middle).mean()))
