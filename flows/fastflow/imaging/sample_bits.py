"""Number of bits that the samples of a 16-bit image use."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.ExifTags import Base as Tag
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from flows.fastflow.imaging.containers.strip_metadata import strip_metadata
from flows.fastflow.imaging.image_formats import reader_of

_HOT = 1e-4  # share of samples
_PNG_DEPTH = 24  # where the header says how many bits a sample has (ISO/IEC 15948, 11.2.1)


class BitsUsed(NamedTuple):
    """Bits that samples use, 0 to 16.

    Attributes:
        brightest: bits of the brightest sample.
        but_hot: bits of the brightest sample without the top ten-thousandth (at least one sample): hot
            pixels say nothing about the camera's range.
    """

    brightest: int
    but_hot: int


def bits_used(data: bytes) -> BitsUsed | None:
    """Count the bits that 16-bit samples use, in grey TIFF or in PNG; None for other files.

    Images of 10-bit or 12-bit cameras are often saved with samples of at most 1023 or 4095. Without the
    right ``sample_bits`` :func:`.decoder.decode_image` leaves them 4 or 16 grey levels.

    Args:
        data: content of a file that `decode_image` accepts.
    """
    reader = reader_of(data)
    if reader is None or reader not in (PngImageFile, TiffImageFile):
        return None
    if reader is PngImageFile:
        if data[_PNG_DEPTH] != 16:  # most files, so the pixels need not be decoded
            return None
        file = np.frombuffer(strip_metadata(reader.format, data).data, np.uint8)
        samples = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
        return None if samples is None else _bits(samples)
    image = reader(io.BytesIO(strip_metadata(reader.format, data).data))
    assert isinstance(image, TiffImageFile)  # noqa: S101
    if not image.mode.startswith("I;16") or max(image.tag_v2.get(Tag.BitsPerSample, (1,))) != 16:
        return None  # colours, of which Pillow returns the high byte; packed 12 bits, which need no setting
    return _bits(np.asarray(image))


def _bits(samples: NDArray[Any]) -> BitsUsed:
    flat = (samples if samples.ndim == 2 else samples.max(2)).ravel()  # OpenCV gives grey in three channels
    highest = max(0, len(flat) - 1 - max(1, int(_HOT * len(flat))))
    return BitsUsed(int(flat.max()).bit_length(), int(np.partition(flat, highest)[highest]).bit_length())
