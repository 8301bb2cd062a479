"""The file formats around the pixels: what a decoder needs of a file, without anything else that is in it.

Pillow and OpenCV look at every segment, chunk and tag of a file: they parse metadata nobody asked
for, keep it in memory, and print a line to stderr on each that is odd. A file of nothing but metadata
held a server for half a minute. So we walk the file first, one step a segment whatever its length,
refuse more steps than cameras and tools ever need, and hand on what makes the pixels alone.
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
    """The picture in ``data``, a file of ``kind`` (Pillow's name of the format), without metadata.

    Raises:
        Refused: it has more segments, chunks or tags than a real file.
        OSError, ValueError, struct.error: it is cut off or damaged.
    """
    return _FORMATS[kind](data)
