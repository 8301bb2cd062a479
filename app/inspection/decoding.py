"""Decoding an upload and preparing it for a model."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.problems import Problem, ProblemName
from flows.fastflow import images
from flows.fastflow.geometry import Prepared

Pixels = NDArray[np.uint8]

_PROBLEMS: Final[dict[type[images.ImageError], ProblemName]] = {
    images.TooLarge: "too-large",
    images.UnsupportedFormat: "unsupported-media-type",
    images.Undecodable: "undecodable-image",
}


@dataclass(frozen=True)
class Decoded:
    """A decoded upload."""

    size: tuple[int, int]  # (height, width) in pixels, after its EXIF orientation was applied
    prepared: Prepared  # as the model takes it
    pixels: Pixels | None  # RGB (height, width, 3), if they were to be kept
    sha256: str  # of the upload's bytes

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.prepared.nbytes + (0 if self.pixels is None else self.pixels.nbytes)


def decode(
    data: bytes,
    limits: images.Limits,
    sample_bits: int,
    prepare: Callable[[Pixels], Prepared],
    *,
    keep_pixels: bool,
) -> Decoded:
    """Decode an upload and prepare it for a model, as `images.decode` and `Detector.prepare`.

    Raises:
        Problem: too-large, unsupported-media-type or undecodable-image, in the decoder's words.
    """
    try:
        pixels = images.decode(data, limits, sample_bits)
    except images.ImageError as error:
        raise Problem(_PROBLEMS.get(type(error), "undecodable-image"), str(error)) from error
    height, width, _ = pixels.shape
    sha256 = hashlib.sha256(data).hexdigest()
    return Decoded((height, width), prepare(pixels), pixels if keep_pixels else None, sha256)
