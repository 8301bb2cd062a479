"""Removal of metadata from PNG files (W3C recommendation, third edition, 5 and 11)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from flows.fastflow.imaging.containers import exif
from flows.fastflow.imaging.containers.stripped_image import (
    MAX_SEGMENTS,
    ExcessiveMetadataError,
    StrippedImage,
)

# One for each row of the tallest image, interlaced; most encoders write chunks of 8 KiB or more.
MAX_PIXEL_CHUNKS = 32_768

_SIGNATURE = 8
_PIXELS = {b"IDAT", b"fdAT"}
_ONCE = {b"IHDR", b"PLTE", b"tRNS", b"IEND"}
_MAX_ONCE_BYTES = 768  # a palette of 256 colours
_ANCILLARY = 0x20  # bit in the first letter of chunks that a decoder may ignore (5.4)


def strip(data: bytes) -> StrippedImage:
    """Keep IHDR, PLTE, tRNS, IDAT and IEND; in an animated PNG those of the default image.

    Every chunk must lie inside ``data``: OpenCV 5.0 allocates what the length of a chunk claims, up to 4 GB
    for a file of a hundred bytes.

    Raises:
        ExcessiveMetadataError: too many chunks.
        OSError: the file is cut off, has a wrong checksum, or has chunks that the specification forbids.
    """
    kept = [memoryview(data)[:_SIGNATURE]]
    seen: set[bytes] = set()
    exif_data = memoryview(b"")
    frames, before = 0, b""
    for name, chunk in _chunks(data):
        body = chunk[8:-4]
        if name == b"IDAT":
            if name in seen and before != name:
                raise OSError("chunks of pixels with others in between")
            if name not in seen and frames and b"fcTL" not in seen:
                frames += 1  # the default image is not part of the animation
            kept.append(chunk)
        elif name in _ONCE:
            if name in seen or len(body) > _MAX_ONCE_BYTES:
                raise OSError(f"a second chunk {name!r}, or one that is too long")
            kept.append(chunk)
        elif not name[0] & _ANCILLARY:
            raise OSError(f"an unknown chunk {name!r}, without which there is no image")
        elif zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise OSError(f"the checksum of a chunk {name!r} is wrong")
        elif name == b"eXIf":
            exif_data = body
        elif name == b"acTL" and b"IDAT" not in seen:
            frames = max(frames, int.from_bytes(body[:4], "big"))
        seen.add(name)
        before = name
    bare = data if sum(map(len, kept)) == len(data) else b"".join(kept)
    return StrippedImage(bare, exif.orientation(exif_data), is_animated=frames > 1)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Iterate over the name and all bytes of each chunk, up to IEND."""
    view = memoryview(data)
    pixel_chunks = others = 0
    at, name = _SIGNATURE, b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise OSError("a chunk is cut off, or there is no last one")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length  # length, name and checksum are four bytes each
        if end > len(data):
            raise OSError(f"a chunk {name!r} is cut off")
        if name in _PIXELS:
            pixel_chunks += 1
        else:
            others += 1
        if pixel_chunks > MAX_PIXEL_CHUNKS:
            raise ExcessiveMetadataError("PNG", f"its pixels in more than {MAX_PIXEL_CHUNKS:,} chunks")
        if others > MAX_SEGMENTS:
            raise ExcessiveMetadataError("PNG", f"more than {MAX_SEGMENTS:,} chunks beside those of pixels")
        yield name, view[at:end]
        at = end
