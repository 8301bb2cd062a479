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
# Image.open is not used: it warns and raises at size limits of its own.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    # Includes the size of the second header, because text files may begin with "BM".
    (re.compile(rb"(?s)BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    (re.compile(rb"(?s)RIFF.{4}WEBPVP8[ LX]"), WebPImageFile),
)


def reader_of(data: bytes) -> type[ImageFile] | None:
    """Return the class that reads the header, by the first bytes; None if they are no image's."""
    return next((reader for signature, reader in _READERS if signature.match(data)), None)
