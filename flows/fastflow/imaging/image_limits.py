"""Limits on the size of an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageLimits:
    """Largest image that is decoded. Sides are in pixels; 50 million pixels take 150 MB of memory."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 16_384


def max_uncompressed_bytes(max_pixels: int) -> int:
    """Return the size of an uncompressed file of 16-bit RGB pixels, with room for its header."""
    return 6 * max_pixels + 2**20


DEFAULT_LIMITS = ImageLimits()
# For local files, which nobody uploads.
FILE_LIMITS = ImageLimits(max_bytes=max_uncompressed_bytes(ImageLimits.max_pixels))
