"""Accepted image formats, recognised by content."""

from __future__ import annotations

import re

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# Not Image.open: it warns and raises at limits on the size that are not ours.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    # With the size of the second header, for many a text begins with "BM".
    (re.compile(rb"(?s)BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    (re.compile(rb"(?s)RIFF.{4}WEBPVP8[ LX]"), WebPImageFile),
)


def reader_of(data: bytes) -> type[ImageFile] | None:
    """What reads the header, by how the file begins; None of what is no picture."""
    return next((reader for signature, reader in _READERS if signature.match(data)), None)
