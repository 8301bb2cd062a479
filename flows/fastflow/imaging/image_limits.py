"""Limits on the size of an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may cost. A side is in pixels; 50 million pixels are 150 MB in memory."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 16_384


def max_uncompressed_bytes(max_pixels: int) -> int:
    """Bytes that suffice for a file of so many pixels of three times 16 bits, however little it is packed."""
    return 6 * max_pixels + 2**20


DEFAULT_LIMITS = ImageLimits()
# Of files of one's own, which nobody sends.
FILE_LIMITS = ImageLimits(max_bytes=max_uncompressed_bytes(ImageLimits.max_pixels))
