"""Errors of images that cannot be decoded.

ImageError
├── ImageTooLargeError       more bytes or pixels than the limits allow
├── UnsupportedFormatError   not one of the five formats, by content
└── UndecodableError         damaged, truncated, or not a single 8-bit or 16-bit image
"""


class ImageError(ValueError):
    """Base of all errors; the message says what came and what is allowed."""


class ImageTooLargeError(ImageError):
    """More bytes or pixels than the limits allow."""


class UnsupportedFormatError(ImageError):
    """Neither PNG, JPEG, BMP, TIFF nor WEBP, by content; names and media types do not count."""


class UndecodableError(ImageError):
    """Truncated, damaged, empty, of several frames, or of pixels other than 8-bit or 16-bit."""
