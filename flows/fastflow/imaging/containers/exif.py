"""Which way up a picture is, by its EXIF; and the directory of tags that EXIF has from TIFF.

Pillow makes an object of every value of a tag, so that megabytes of fractions become gigabytes of
memory. Here values stay bytes: a pass over the entries, at most 65,535 of EXIF, is all it costs.

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
# Some writers swap the bytes of the number 42 alone; Pillow reads those, so we do.
_BYTE_ORDERS = {b"II*\0": "<", b"II\0*": "<", b"MM\0*": ">", b"MM*\0": ">", b"II+\0": "<", b"MM\0+": ">"}
_INTEGERS = {3: "H", 4: "I"}
_EXIF_PREFIX = b"Exif\0\0"


class TiffTag(NamedTuple):
    """A tag. ``value`` holds its values where they fit (4 bytes, 8 of BigTIFF), else their offset."""

    tag: int
    kind: int
    n_values: int
    value: bytes


@dataclass(frozen=True)
class TagDirectory:
    """The first directory of a TIFF file, or of EXIF data.

    Args:
        order: byte order, as the module struct names it.
        number: how the number of entries is stored, again as struct names it.
        offset: how offsets are.
        entry: how an entry is.
        start: where the number of entries stands.
        count: this number, for which the file may be too short.
    """

    order: str
    number: str
    offset: str
    entry: struct.Struct
    start: int
    count: int

    @property
    def first(self) -> int:
        """Where the first entry begins."""
        return self.start + struct.calcsize(self.order + self.number)

    def entries(self, data: bytes | memoryview) -> Iterator[TiffTag]:
        """Those that lie inside ``data``."""
        size = self.entry.size
        room = (len(data) - self.first) // size
        entries = memoryview(data)[self.first :][: min(self.count, room) * size]
        return map(TiffTag._make, self.entry.iter_unpack(entries))

    def orientation(self, data: bytes | memoryview) -> int | None:
        """The value of the tag, 1 to 8 or what is there instead; None where there is no such tag."""
        for tag, kind, n_values, value in self.entries(data):
            if tag == _ORIENTATION and n_values == 1 and kind in _INTEGERS:
                number: int = struct.unpack_from(self.order + _INTEGERS[kind], value)[0]
                return number
        return None


def read_directory(data: bytes | memoryview) -> TagDirectory:
    """The first directory of a TIFF or BigTIFF file, its entries unread.

    Raises:
        ValueError: the data do not begin as TIFF does.
        struct.error: there is nothing where the directory should be.
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
    """1 to 8 as EXIF numbers them; 1 is upright, as is a picture whose metadata are damaged or absent.

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
    """``value``, or 1 in place of none and of one that does not exist."""
    return value if value is not None and 1 <= value <= 8 else _UPRIGHT
