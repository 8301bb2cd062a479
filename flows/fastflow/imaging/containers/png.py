"""PNG: its chunks, of which those of the pixels stay (W3C recommendation, third edition, 5 and 11)."""

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

# One for each row of the tallest picture, interlaced; most encoders put 8 KiB or more into one.
MAX_PIXEL_CHUNKS = 32_768

_SIGNATURE = 8
_PIXELS = {b"IDAT", b"fdAT"}
_ONCE = {b"IHDR", b"PLTE", b"tRNS", b"IEND"}
_LONGEST = 768  # bytes: a palette of 256 colours
_ANCILLARY = 0x20  # the bit in the first letter of a chunk that a decoder may ignore (5.4)


def strip(data: bytes) -> StrippedImage:
    """IHDR, PLTE, tRNS, IDAT and IEND; of an animated PNG the picture for decoders that know none.

    OpenCV 5.0 sets aside what the length of a chunk claims, 4 GB for a file of a hundred bytes: here
    every chunk lies inside ``data``.

    Raises:
        Refused: too many chunks.
        OSError: cut off, a wrong checksum, or chunks that the specification rules out.
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
                frames += 1  # this picture is none of the animation's
            kept.append(chunk)
        elif name in _ONCE:
            if name in seen or len(body) > _LONGEST:
                raise OSError(f"a second chunk {name!r}, or one that is too long")
            kept.append(chunk)
        elif not name[0] & _ANCILLARY:
            raise OSError(f"an unknown chunk {name!r}, without which there is no picture")
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
    """Name and all bytes of each chunk, up to IEND."""
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
