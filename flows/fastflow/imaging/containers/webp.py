"""Orientation and number of chunks of WebP files (WebP Container Specification).

Source: developers.google.com/speed/webp/docs/riff_container.
"""

from __future__ import annotations

import struct

from flows.fastflow.imaging.containers import exif
from flows.fastflow.imaging.containers.stripped_image import (
    MAX_SEGMENTS,
    ExcessiveMetadataError,
    StrippedImage,
)

_HEADER = 12  # RIFF, the size of what follows, WEBP
_HAS_EXIF = 0x08


def strip(data: bytes) -> StrippedImage:
    """Check the number of chunks; the file stays as it is, because libwebp ignores metadata.

    Raises:
        ExcessiveMetadataError: too many chunks.
    """
    view = memoryview(data)
    exif_data = view[:0]
    flags = data[20] if data[12:16] == b"VP8X" and len(data) > 20 else 0
    at, end = _HEADER, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MAX_SEGMENTS):
        if at + 8 > end:
            return StrippedImage(data, exif.orientation(exif_data))
        name, length = struct.unpack_from("<4sI", data, at)
        body = view[at + 8 : at + 8 + length]
        if name == b"EXIF" and flags & _HAS_EXIF:
            exif_data = exif_data or body
        at += 8 + length + length % 2
    raise ExcessiveMetadataError("WEBP", f"more than {MAX_SEGMENTS:,} chunks")
