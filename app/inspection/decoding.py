"""Pixels: an upload decoded and prepared for a model, an anomaly map drawn and searched for regions."""

import hashlib
import io
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.errors.problems import Problem, ProblemName
from app.schemas.predict import Region
from flows.fastflow.imaging import anomaly_regions, decoder, heatmap, image_errors, image_limits
from flows.fastflow.imaging.geometry import PreparedImage
from flows.fastflow.imaging.heatmap import ColourScale

Pixels = NDArray[np.uint8]
Drawing = Literal["overlay", "heatmap", "map"]
Files = Mapping[Drawing, bytes]

_PROBLEMS: Final[dict[type[image_errors.ImageError], ProblemName]] = {
    image_errors.ImageTooLargeError: "too-large",
    image_errors.UnsupportedFormatError: "unsupported-media-type",
    image_errors.UndecodableError: "undecodable-image",
}


@dataclass(frozen=True)
class DecodedUpload:
    """A decoded upload."""

    size: tuple[int, int]  # (height, width) in pixels, after its EXIF orientation was applied
    prepared: PreparedImage  # as the model takes it
    pixels: Pixels | None  # RGB (height, width, 3), if they were to be kept
    sha256: str  # of the upload's bytes

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.prepared.nbytes + (0 if self.pixels is None else self.pixels.nbytes)


def decode_upload(
    data: bytes,
    limits: image_limits.ImageLimits,
    sample_bits: int,
    prepare: Callable[[Pixels], PreparedImage],
    *,
    keep_pixels: bool,
) -> DecodedUpload:
    """Decode an upload and prepare it for a model, as `decoder.decode_image` and `Detector.prepare`.

    Raises:
        Problem: too-large, unsupported-media-type or undecodable-image, in the decoder's words.
    """
    try:
        pixels = decoder.decode_image(data, limits, sample_bits)
    except image_errors.ImageError as error:
        raise Problem(_PROBLEMS.get(type(error), "undecodable-image"), str(error)) from error
    height, width, _ = pixels.shape
    sha256 = hashlib.sha256(data).hexdigest()
    return DecodedUpload((height, width), prepare(pixels), pixels if keep_pixels else None, sha256)


class Explanation(NamedTuple):
    """Files of a map, its regions if they were asked for, and the share of it above the pixel threshold."""

    files: Files
    regions: list[Region] | None
    area_fraction: float


def explain(
    score_map: NDArray[np.float32],
    scale: ColourScale,
    size: tuple[int, int],
    pixels: Pixels | None,
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
        hot = anomaly_regions.find_regions(score_map, scale.middle, size, math.prod(input_size))
        found = [Region.model_validate(region, from_attributes=True) for region in hot]
    files: dict[Drawing, bytes] = {}
    if "overlay" in drawings and pixels is not None:
        files["overlay"] = heatmap.encode_png(heatmap.render_overlay(pixels, score_map, scale))
    if "heatmap" in drawings:
        files["heatmap"] = heatmap.encode_png(heatmap.render_heatmap(score_map, scale, size))
    if "map" in drawings:
        file = io.BytesIO()
        np.save(file, score_map.astype(np.float32, copy=False), allow_pickle=False)
        files["map"] = file.getvalue()
    return Explanation(files, found, float((score_map > scale.middle).mean()))
