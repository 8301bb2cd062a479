"""Image file without its metadata, and the error for a file with too much metadata."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SEGMENTS = 1024  # of 64 KiB each, together more than the largest file allowed


class ExcessiveMetadataError(ValueError):
    """File with more metadata than any real one. Users see the message."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(
            f"The {kind} image has {what}; no camera or tool writes such files. Save it as PNG and send that."
        )


@dataclass(frozen=True)
class StrippedImage:
    """Image file without its metadata.

    Args:
        data: a file of the same format and pixels.
        orientation: EXIF orientation, 1 to 8, to apply to the pixels; 1 is upright.
        is_animated: PNG only: the file has more frames than the one in ``data``.
    """

    data: bytes
    orientation: int = 1
    is_animated: bool = False
