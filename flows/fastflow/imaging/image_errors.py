"""Errors of images that cannot be decoded.

ImageError
├── TooLarge            more bytes or pixels than the limits allow
├── UnsupportedFormat   not one of the five formats, by content
└── Undecodable         damaged, truncated, or not a single 8-bit or 16-bit image
"""


class ImageError(ValueError):
    """A picture that is not accepted; the message says what came and what is allowed."""


class ImageTooLargeError(ImageError):
    """More bytes or pixels than the limits allow."""


class UnsupportedFormatError(ImageError):
    """Not PNG, JPEG, BMP, TIFF or WEBP. The content decides, not a name or a media type."""


class UndecodableError(ImageError):
    """Truncated, damaged, of zero size, of several frames, or of pixels not 8-bit or 16-bit."""
