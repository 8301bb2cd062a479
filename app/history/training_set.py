"""Training set of images reviewed as good, packed as an archive.

    <category>/train/good/<part>_<inspection id>.png    with the suffix of the upload
    <category>/parts.txt                                only with named parts: the expression for them

is the layout that `flowgauge train` reads. Each image occurs once, even if inspected several times. An image
that another review calls a defect is left out. <part> is a digest of the `part_id`; an image without a
`part_id` has no prefix and counts as a part of its own.

Reviewed images are a selection. A model can learn from them, but thresholds calibrated on them promise
nothing for the line, unless they are of the audit sample: see docs/explanation/calibration.md.
"""

import hashlib
import logging
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import RawIOBase
from typing import Any, Final

from app.history.inspection_files import InspectionFiles, detect_format
from app.history.reviewed_images import ReviewedInspection
from app.http.responses import PIECE_BYTES
from flows.fastflow.calibration.images_per_part import PARTS

logger = logging.getLogger("flowgauge.history")

PARTS_FILE: Final = """\
# Images of one part begin with the same 16 digits and an underscore; any other is of a part of its own.
^(?:([0-9a-f]{16})_)?
"""


def pack_archive(
    chosen: Iterator[ReviewedInspection], files: InspectionFiles, category: str
) -> Iterator[bytes]:
    """Pack images into a ZIP archive and yield it in pieces; one image at a time is in memory."""
    pieces = _Pieces()
    begun, has_parts = datetime.now(UTC), False
    with zipfile.ZipFile(pieces, "w") as file:
        for image in chosen:
            data = files.read_image(image.sha256)
            if data is None:
                logger.error(
                    "image %s of inspection %s is missing or damaged", image.sha256, image.inspection_id
                )
                continue
            part = part_prefix(image.part_id)
            has_parts |= part != ""
            name = f"{category}/train/good/{part}{image.inspection_id}.{detect_format(data).suffix}"
            file.writestr(_member(name, datetime.fromtimestamp(image.created_ms / 1000, UTC)), data)
            del data  # free it: the pieces may be sent slowly
            yield from pieces.take()
        if has_parts:
            file.writestr(_member(f"{category}/{PARTS}", begun), PARTS_FILE)
    yield from pieces.take()


def part_prefix(part_id: str | None) -> str:
    """Return the beginning of an image's name, from which PARTS_FILE finds the part; "" without a part."""
    return f"{hashlib.sha256(part_id.encode()).hexdigest()[:16]}_" if part_id else ""


def _member(name: str, time: datetime) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, time.timetuple()[:6])
    member.external_attr = 0o644 << 16
    return member


class _Pieces(RawIOBase):
    """A writable file whose content is taken in pieces."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        """Yield and clear the written bytes, in pieces of at most PIECE_BYTES."""
        taken, self._written = b"".join(self._written), []
        for begin in range(0, len(taken), PIECE_BYTES):
            yield taken[begin : begin + PIECE_BYTES]
