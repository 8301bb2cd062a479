"""What is left of a file without its metadata, and the refusal of one that has too much of them."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SEGMENTS = 1024  # with 64 KiB each, more than the largest file allowed has bytes


class ExcessiveMetadataError(ValueError):
    """A file that costs more to look through than any real one. A user may read the message."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(
            f"The {kind} picture has {what}; no camera or tool writes it so. Send it saved anew as PNG."
        )


@dataclass(frozen=True)
class StrippedImage:
    """A picture without its metadata.

    Args:
        data: a file of the same format and the same pixels.
        orientation: that of EXIF, 1 to 8, to be applied to the pixels; 1 is upright.
        is_animated: of PNG alone: the file has more frames than the one left in ``data``.
    """

    data: bytes
    orientation: int = 1
    is_animated: bool = False
