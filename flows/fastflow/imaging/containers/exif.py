"""Orientation of an image in its EXIF data, and the directory of tags that EXIF shares with TIFF.

Pillow makes an object of every value of a tag, so megabytes of fractions become gigabytes of memory.
Here values stay bytes, and the cost is one pass over the entries, at most 65,535 in EXIF.

Sources: TIFF 6.0 (Adobe, 1992), section 2; BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html);
Exif 2.32 (CIPA DC-008), 4.6.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_ORIENTATION = 274
_UPRIGHT = 1
# Some writers swap only the bytes of the number 42; Pillow accepts such files.
_BYTE_ORDERS = {b"II*\0": "<", b"II\0*": "<", b"MM\0*": ">", b"MM*\0": ">", b"II+\0": "<", b"MM\0+": ">"}
_INTEGERS = {3: "H", 4: "I"}
_EXIF_PREFIX = b"Exif\0\0"


class TiffTag(NamedTuple):
    """Tag of a directory; ``value`` holds its values if they fit (4 or 8 bytes), else their offset."""

    tag: int
    kind: int
    n_values: int
    value: bytes


@dataclass(frozen=True)
class TagDirectory:
    """First directory of a TIFF file, or of EXIF data.

    Args:
        order: byte order as a format of the module struct.
        number: format of the number of entries.
        offset: format of an offset.
        entry: layout of an entry.
        start: position of the number of entries.
        count: number of entries; the file may be shorter.
    """

    order: str
    number: str
    offset: str
    entry: struct.Struct
    start: int
    count: int

    @property
    def first(self) -> int:
        """Position of the first entry."""
        return self.start + struct.calcsize(self.order + self.number)

    def entries(self, data: bytes | memoryview) -> Iterator[TiffTag]:
        """Iterate over the entries inside ``data``."""
        size = self.entry.size
        room = (len(data) - self.first) // size
        entries = memoryview(data)[self.first :][: min(self.count, room) * size]
        return map(TiffTag._make, self.entry.iter_unpack(entries))

    def orientation(self, data: bytes | memoryview) -> int | None:
        """Read the value of the orientation tag, valid or not; None without the tag."""
        for tag, kind, n_values, value in self.entries(data):
            if tag == _ORIENTATION and n_values == 1 and kind in _INTEGERS:
                number: int = struct.unpack_from(self.order + _INTEGERS[kind], value)[0]
                return number
        return None


def read_directory(data: bytes | memoryview) -> TagDirectory:
    """Read the head of the first directory of a TIFF or BigTIFF file.

    Raises:
        ValueError: the data do not begin like TIFF.
        struct.error: the data end before the directory.
    """
    head = bytes(data[:4])
    if head not in _BYTE_ORDERS:
        raise ValueError(f"neither TIFF nor EXIF: it begins with {head!r}")
    order, big = _BYTE_ORDERS[head], b"+" in head
    number, offset, entry = ("Q", "Q", "HHQ8s") if big else ("H", "I", "HHI4s")
    start: int = struct.unpack_from(order + offset, data, 8 if big else 4)[0]
    if start >= len(data):
        raise struct.error(f"the directory begins at {start} of {len(data)} bytes")
    count: int = struct.unpack_from(order + number, data, start)[0]
    return TagDirectory(order, number, offset, struct.Struct(order + entry), start, count)


def orientation(exif: bytes | memoryview) -> int:
    """Read the orientation of EXIF data, 1 to 8; 1 (upright) if they are damaged or absent.

    Args:
        exif: a TIFF file without pixels, after up to two prefixes ``Exif\\0\\0``; may be empty.
    """
    for _ in range(2):
        exif = exif[6:] if exif[:6] == _EXIF_PREFIX else exif
    try:
        return valid_orientation(read_directory(exif).orientation(exif))
    except (ValueError, struct.error):
        return _UPRIGHT


def valid_orientation(value: int | None) -> int:
    """Return a valid orientation: ``value``, or 1 if it is missing or unknown."""
    return value if value is not None and 1 <= value <= 8 else _UPRIGHT
