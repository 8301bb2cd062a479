"""Images pinned to the content that their files had when the run began.

A run may read an image hours after hashing it. Its results are stored under that hash, in cached features
and in the published version, so the bytes must be the same.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.imaging import decoder
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from training.data.sample import DatasetError


class PinnedImage(NamedTuple):
    """An image file with the sha256 of its content when the run began."""

    path: Path
    sha256: str


def read(image: PinnedImage, sample_bits: int) -> NDArray[np.uint8]:
    """Read the image's pixels, see `decoder.decode_image`.

    Raises:
        DatasetError: as `read_bytes`.
        ImageError: it cannot be decoded; it is named.
    """
    data = read_bytes(image)
    try:
        return decode_image(data, FILE_LIMITS, sample_bits)
    except ImageError as error:
        raise type(error)(f"{image.path}: {error}") from error


def size_of(image: PinnedImage) -> tuple[int, int]:
    """Read the image's (height, width) from its header.

    Raises:
        DatasetError: as `read_bytes`.
        ImageError: the header cannot be read; the image is named.
    """
    data = read_bytes(image)
    try:
        return decoder.decoded_size(data, FILE_LIMITS)
    except ImageError as error:
        raise type(error)(f"{image.path}: {error}") from error


def read_bytes(image: PinnedImage) -> bytes:
    """Read the image's bytes.

    Raises:
        DatasetError: the file was changed since the run began, or cannot be read; it is named.
    """
    try:
        data = decoder.read_image_bytes(image.path)
    except OSError as error:
        raise DatasetError(
            f"{image.path} was there when the run began and cannot be read any more: "
            f"{error.strerror or error}. Put it back, and --resume goes on from what is fitted; without it, "
            "this is another run, which begins anew"
        ) from error
    # A file above the limit is not read to its end; no run begins with one.
    if len(data) > FILE_LIMITS.max_bytes or hashlib.sha256(data).hexdigest() != image.sha256:
        raise DatasetError(
            f"{image.path} was changed since the run began. Put it back as it was, and --resume goes on "
            "from what is fitted; as it is now, this is another run, which begins anew"
        )
    return data
