"""Removal of metadata from TIFF files (TIFF 6.0, and BigTIFF)."""

from __future__ import annotations

import struct

from flows.fastflow.imaging.containers import exif
from flows.fastflow.imaging.containers.stripped_image import ExcessiveMetadataError, StrippedImage

MAX_TAGS = 1024
MAX_VALUES = 64
# Positions of strips or tiles: at most one for each row of four planes. Palettes of 16 bits. JPEG tables.
MAX_VALUES_OF = {273: 65_536, 279: 65_536, 324: 65_536, 325: 65_536, 320: 3 * 65_536, 347: 65_536}

# Size and kind of the pixels, compression, positions, palette; inks, samples, old JPEG, YCbCr.
_PIXELS = frozenset(
    {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 334, 338, 339, 346, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)


def strip(data: bytes) -> StrippedImage:
    """Rewrite the first directory in place, without tags that do not concern the pixels.

    Positions and length of the file do not change, so a file that is cut off stays cut off.

    Raises:
        ExcessiveMetadataError: too many tags, or too many values in a tag that stays.
        OSError, ValueError, struct.error: the file is cut off, or not TIFF.
    """
    view = memoryview(data)
    directory = exif.read_directory(data)
    offset = struct.Struct(directory.order + directory.offset)
    size = directory.entry.size
    end = directory.first + directory.count * size
    if directory.count > MAX_TAGS:
        raise ExcessiveMetadataError("TIFF", f"{directory.count:,} tags, more than {MAX_TAGS:,}")
    if end > len(data):
        raise OSError("the directory is cut off")
    kept: dict[int, memoryview] = {}  # decoders use the first of two equal tags, so does this
    for at, entry in zip(range(directory.first, end, size), directory.entries(data), strict=True):
        if entry.tag in _PIXELS and entry.tag not in kept:
            max_values = MAX_VALUES_OF.get(entry.tag, MAX_VALUES)
            if entry.n_values > max_values:
                raise ExcessiveMetadataError(
                    "TIFF", f"{entry.n_values:,} values in tag {entry.tag}, more than {max_values:,}"
                )
            kept[entry.tag] = view[at : at + size]
    number = struct.pack(directory.order + directory.number, len(kept))
    new = b"".join([number, *kept.values(), view[end : end + offset.size]])
    stripped = b"".join([view[: directory.start], new, view[directory.start + len(new) :]])
    return StrippedImage(stripped, exif.valid_orientation(directory.orientation(data)))
