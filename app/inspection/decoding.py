"""Decoding of uploads: bytes to pixels, prepared for a model."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.errors.problems import Problem, ProblemName
from flows.fastflow.imaging import decoder, image_errors, image_limits
from flows.fastflow.imaging.geometry import PreparedImage

Pixels = NDArray[np.uint8]

_PROBLEMS: Final[dict[type[image_errors.ImageError], ProblemName]] = {
    image_errors.ImageTooLargeError: "too-large",
    image_errors.UnsupportedFormatError: "unsupported-media-type",
    image_errors.UndecodableError: "undecodable-image",
}


@dataclass(frozen=True)
class DecodedUpload:
    size: tuple[int, int]  # (height, width) in pixels, after applying the EXIF orientation
    prepared: PreparedImage  # input of the model
    pixels: Pixels | None  # RGB (height, width, 3), if requested
    sha256: str  # of the upload's bytes

    @property
    def nbytes(self) -> int:
        """Size in memory, in bytes."""
        return self.prepared.nbytes + (0 if self.pixels is None else self.pixels.nbytes)


def decode_upload(
    data: bytes,
    limits: image_limits.ImageLimits,
    sample_bits: int,
    prepare: Callable[[Pixels], PreparedImage],
    *,
    keep_pixels: bool,
) -> DecodedUpload:
    """Decode an upload and prepare it for a model.

    Raises:
        Problem: too-large, unsupported-media-type or undecodable-image, with the decoder's message.
    """
    pixels = decode_pixels(data, limits, sample_bits)
    height, width, _ = pixels.shape
    sha256 = hashlib.sha256(data).hexdigest()
    return DecodedUpload((height, width), prepare(pixels), pixels if keep_pixels else None, sha256)


def decode_pixels(data: bytes, limits: image_limits.ImageLimits, sample_bits: int) -> Pixels:
    """Decode an upload to RGB, (height, width, 3).

    Raises:
        Problem: as `decode_upload`.
    """
    try:
        return decoder.decode_image(data, limits, sample_bits)
    except image_errors.ImageError as error:
        raise Problem(_PROBLEMS.get(type(error), "undecodable-image"), str(error)) from error
