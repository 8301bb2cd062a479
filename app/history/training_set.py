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
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from io import RawIOBase
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select

from app.database import clock
from app.database.engine import Database
from app.database.planner_hints import unindexed
from app.database.tables import inspections
from app.history.inspection_files import InspectionFiles, detect_format
from app.history.queries import is_elsewhere
from app.http.responses import PIECE_BYTES
from flows.fastflow.calibration.images_per_part import PARTS

logger = logging.getLogger("flowgauge.history")

_COLUMNS = inspections.columns
_PAGE: Final = 500
_PARTS_FILE: Final = """\
# Images of one part begin with the same 16 digits and an underscore; any other is of a part of its own.
^(?:([0-9a-f]{16})_)?
"""


class GoodImage(NamedTuple):
    """An image reviewed as good; the part_id may come from another inspection of it."""

    inspection_id: str
    created_ms: int
    sha256: str
    part_id: str | None


def good_images(
    database: Database,
    category: str,
    *,
    station: str | None = None,
    without: Sequence[str] = (),
    since_ms: int = 0,
    audit: bool = False,
) -> Iterator[GoodImage]:
    """Yield the good images of a category, oldest first.

    Args:
        database: the history's database.
        category: category of the images.
        station: only images of this station; None for all except `without`.
        without: excluded stations.
        since_ms: earliest time, in milliseconds since 1970, UTC.
        audit: only images of the audit sample.

    Pages are read one by one, so concurrent reviews may or may not be included.
    """
    conditions = [_COLUMNS.category == category, _COLUMNS.verdict == "good", _COLUMNS.has_pictures]
    if audit:
        conditions.append(_COLUMNS.audit)
    if station is not None:
        conditions.append(_COLUMNS.station == station)
    elif without:
        conditions.append(is_elsewhere(_COLUMNS.station, without))
    columns = (_COLUMNS.id, _COLUMNS.created_ms, _COLUMNS.image_sha256, _COLUMNS.part_id)
    good = select(*columns).where(*conditions).order_by(_COLUMNS.id).limit(_PAGE)
    seen: set[bytes] = set()
    after = clock.first_id(since_ms) if since_ms > 0 else ""
    while True:
        with database.read() as connection:
            page = [GoodImage(*row) for row in connection.execute(good.where(_COLUMNS.id > after))]
            same = (
                _COLUMNS.image_sha256.in_({image.sha256 for image in page}),
                unindexed(_COLUMNS.category) == category,
            )
            defects = select(_COLUMNS.image_sha256).where(*same, unindexed(_COLUMNS.verdict) == "defect")
            contradicted = set(connection.scalars(defects))
            named = (
                select(_COLUMNS.image_sha256, func.min(_COLUMNS.part_id))
                .where(*same, unindexed(_COLUMNS.part_id).is_not(None))
                .group_by(_COLUMNS.image_sha256)
            )
            parts = {row[0]: row[1] for row in connection.execute(named)}
        for image in page:
            digest = bytes.fromhex(image.sha256)
            if image.sha256 not in contradicted and digest not in seen:
                seen.add(digest)
                yield image._replace(part_id=image.part_id or parts.get(image.sha256))
        if len(page) < _PAGE:
            return
        after = page[-1].inspection_id


def images_of_parts(database: Database, category: str, parts: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield part_id and sha256 of all images of some parts, with any verdict and from any station."""
    of_category = (
        select(_COLUMNS.part_id, _COLUMNS.image_sha256)
        .where(unindexed(_COLUMNS.category) == category)
        .distinct()
    )
    ordered = sorted(parts)
    for start in range(0, len(ordered), _PAGE):
        of_some = of_category.where(_COLUMNS.part_id.in_(ordered[start : start + _PAGE]))
        with database.read() as connection:
            found = [(part, sha256) for part, sha256 in connection.execute(of_some)]
        yield from found


def pack_archive(chosen: Iterator[GoodImage], files: InspectionFiles, category: str) -> Iterator[bytes]:
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
            part = (
                "" if image.part_id is None else f"{hashlib.sha256(image.part_id.encode()).hexdigest()[:16]}_"
            )
            has_parts |= part != ""
            name = f"{category}/train/good/{part}{image.inspection_id}.{detect_format(data).suffix}"
            file.writestr(_member(name, datetime.fromtimestamp(image.created_ms / 1000, UTC)), data)
            del data  # free it: the pieces may be sent slowly
            yield from pieces.take()
        if has_parts:
            file.writestr(_member(f"{category}/{PARTS}", begun), _PARTS_FILE)
    yield from pieces.take()


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
