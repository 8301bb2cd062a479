"""Removal of metadata from JPEG files (ITU-T T.81, annex B)."""

from __future__ import annotations

import re

from flows.fastflow.imaging.containers import exif
from flows.fastflow.imaging.containers.stripped_image import (
    MAX_SEGMENTS,
    ExcessiveMetadataError,
    StrippedImage,
)

MAX_FILL = 4096  # bytes between two segments
MAX_TABLES = 128 * 1024  # bytes; tables of four components take 3 KB, a JFIF thumbnail 64 KiB

# 0xFF, then neither 0 nor 0xFF (B.1.1.2). A repetition in the pattern would cause backtracking.
_MARKER = re.compile(rb"\xff[^\0\xff]")
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and the restarts
# Frame headers, tables of Huffman and arithmetic codes, quantisation tables, restart interval.
_TABLES = {*range(0xC0, 0xD0), 0xDB, 0xDD} - {0xC8}
_METADATA = {*range(0xE0, 0xF0), 0xFE, 0xDC}  # APPn, comments; a number of lines is invalid here
# APP0 of JFIF (T.871) and APP14 of Adobe define the colours of the components.
_COLOURS = {(0xE0, b"JFIF\0"), (0xEE, b"Adobe")}
_EXIF = b"Exif\0\0"


def strip(data: bytes) -> StrippedImage:
    """Keep the tables and frame headers, and everything from the first scan on.

    Raises:
        ExcessiveMetadataError: too many segments, or too many bytes of tables or between segments.
        OSError: the file is cut off, or has markers out of place.
    """
    view = memoryview(data)
    kept, tables = [view[:2]], 0
    exif_data: list[memoryview] = []
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at, at + MAX_FILL)
        if found is None:
            if at + MAX_FILL < len(data):
                raise ExcessiveMetadataError(
                    "JPEG", f"more than {MAX_FILL:,} bytes of filling between two segments"
                )
            raise OSError("no marker up to the end")
        start, at = found.span()
        marker = data[at - 1]
        if marker == _START_OF_SCAN:
            kept.append(view[start:])
            return StrippedImage(b"".join(kept), exif.orientation(b"".join(exif_data)))
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        body = view[at + 2 : at + length]
        at += length
        if length < 2 or at > len(data):
            raise OSError("a segment is cut off")
        if marker in _TABLES or (marker, bytes(body[:5])) in _COLOURS:
            kept.append(view[start:at])
            tables += at - start
            if tables > MAX_TABLES:
                raise ExcessiveMetadataError("JPEG", f"more than {MAX_TABLES:,} bytes of tables")
        elif marker not in _METADATA:
            raise OSError(f"marker {marker:#x} before the pixels")
        elif marker == _APP1 and body[: len(_EXIF)] == _EXIF:
            exif_data.append(body[len(_EXIF) :])
    raise ExcessiveMetadataError("JPEG", f"more than {MAX_SEGMENTS:,} segments before its pixels")
