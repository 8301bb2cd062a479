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
    """How many bits samples take, 0 to 16.

    Attributes:
        brightest: of all of them.
        but_hot: of all but the brightest ten-thousandth, and at least one: a pixel that is hot tells nothing
            of what the camera gives.
    """

    brightest: int
    but_hot: int


def bits_used(data: bytes) -> BitsUsed | None:
    """How many bits the samples take, of grey or of PNG of 16 bits; None of any other.

    Cameras of 10 or 12 bits are often saved so that no sample is above 1023 or 4095: unless :func:`decode` is
    told so, it then leaves 4 or 16 grey levels.

    Args:
        data: of a file that :func:`decode` takes.
    """
    reader = reader_of(data)
    if reader is None or reader not in (PngImageFile, TiffImageFile):
        return None
    if reader is PngImageFile:
        if data[_PNG_DEPTH] != 16:  # as nearly all, of which no more need be read
            return None
        file = np.frombuffer(strip_metadata(reader.format, data).data, np.uint8)
        samples = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
        return None if samples is None else _bits(samples)
    image = reader(io.BytesIO(strip_metadata(reader.format, data).data))
    assert isinstance(image, TiffImageFile)  # noqa: S101
    if not image.mode.startswith("I;16") or max(image.tag_v2.get(Tag.BitsPerSample, (1,))) != 16:
        return None  # colours of which Pillow gives the high byte; 12 bits that are packed, and taken as such
    return _bits(np.asarray(image))


def _bits(samples: NDArray[Any]) -> BitsUsed:
    flat = (samples if samples.ndim == 2 else samples.max(2)).ravel()  # a grey PNG comes in three channels
    highest = max(0, len(flat) - 1 - max(1, int(_HOT * len(flat))))
    return BitsUsed(int(flat.max()).bit_length(), int(np.partition(flat, highest)[highest]).bit_length())
