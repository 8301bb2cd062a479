"""Removal of metadata from image files, by format.

Pillow and OpenCV read every segment, chunk and tag of a file. They parse metadata, keep it in memory, and
print a line to stderr for each oddity. A file of nothing but metadata blocked a server for half a minute.
So this package walks the file first, in one step per segment. It rejects files with more segments than
cameras and tools write, and passes on only the parts that define the pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from flows.fastflow.imaging.containers import jpeg, png, tiff, webp
from flows.fastflow.imaging.containers.stripped_image import StrippedImage

_FORMATS: dict[str | None, Callable[[bytes], StrippedImage]] = {
    "JPEG": jpeg.strip,
    "PNG": png.strip,
    "TIFF": tiff.strip,
    "WEBP": webp.strip,
    "BMP": StrippedImage,  # a header of at most 124 bytes and a palette: there is nothing to strip
}


def strip_metadata(kind: str | None, data: bytes) -> StrippedImage:
    """Strip the metadata from ``data``, a file of ``kind`` (Pillow's name of the format).

    Raises:
        ExcessiveMetadataError: the file has more segments, chunks or tags than a real one.
        OSError, ValueError, struct.error: the file is cut off or damaged.
    """
    return _FORMATS[kind](data)
