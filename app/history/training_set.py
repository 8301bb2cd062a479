"""Images that people have found good, as an archive to train the next version on.

    <category>/train/good/<part>_<inspection id>.png    or the suffix of what was uploaded
    <category>/parts.txt                                where parts were named: the expression that tells them

is the layout that `flowgauge train` reads. A picture is in it once, however often it was inspected; one that
another inspection's review calls a defect is left out, for training must not learn from it. What stands for
the part is a digest of its `part_id`; without one it is left out, and the picture is of a part of its own.

What was reviewed is a selection. A model may learn what is good from it, but a threshold that it sets
promises nothing for the line: see docs/explanation/calibration.md.
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
from flows.fastflow.calibration.parts import PARTS

logger = logging.getLogger("flowgauge.history")

_COLUMNS = inspections.columns
_PAGE: Final = 500
_PARTS_FILE: Final = """\
# Pictures of one part begin with the same 16 digits and an underscore; any other is of a part of its own.
^(?:([0-9a-f]{16})_)?
"""


class GoodImage(NamedTuple):
    """An image that was reviewed as good; any inspection of it may have said which part it shows."""

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
) -> Iterator[GoodImage]:
    """The images of a category that belong into its training set, oldest first.

    Those inspected at a station, or anywhere `without` some; at a time in milliseconds since 1970, UTC, or
    later. They are read page by page: what is reviewed meanwhile may be among them or not.
    """
    wanted = [_COLUMNS.category == category, _COLUMNS.verdict == "good", _COLUMNS.has_pictures]
    if station is not None:
        wanted.append(_COLUMNS.station == station)
    elif without:
        wanted.append(is_elsewhere(_COLUMNS.station, without))
    columns = (_COLUMNS.id, _COLUMNS.created_ms, _COLUMNS.image_sha256, _COLUMNS.part_id)
    good = select(*columns).where(*wanted).order_by(_COLUMNS.id).limit(_PAGE)
    seen: set[bytes] = set()
    after = clock.first_id(since_ms) if since_ms > 0 else ""
    while True:
        with database.read() as connection:
            page = [GoodImage(*row) for row in connection.execute(good.where(_COLUMNS.id > after))]
            same = (
                _COLUMNS.image_sha256.in_({picture.sha256 for picture in page}),
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
        for picture in page:
            digest = bytes.fromhex(picture.sha256)
            if picture.sha256 not in contradicted and digest not in seen:
                seen.add(digest)
                yield picture._replace(part_id=picture.part_id or parts.get(picture.sha256))
        if len(page) < _PAGE:
            return
        after = page[-1].inspection_id


def images_of_parts(database: Database, category: str, parts: Collection[str]) -> Iterator[tuple[str, str]]:
    """All images of some parts, whoever inspected them and whatever was said of them: part_id and sha256."""
    of_category = (
        select(_COLUMNS.part_id, _COLUMNS.image_sha256)
        .where(unindexed(_COLUMNS.category) == category)
        .distinct()
    )
    wanted = sorted(parts)
    for start in range(0, len(wanted), _PAGE):
        of_some = of_category.where(_COLUMNS.part_id.in_(wanted[start : start + _PAGE]))
        with database.read() as connection:
            found = [(part, sha256) for part, sha256 in connection.execute(of_some)]
        yield from found


def pack_archive(chosen: Iterator[GoodImage], pictures: InspectionFiles, category: str) -> Iterator[bytes]:
    """Pack images into a ZIP archive, piece by piece; one image at a time is in memory."""
    pieces = _Pieces()
    begun, parts_told = datetime.now(UTC), False
    with zipfile.ZipFile(pieces, "w") as file:
        for one in chosen:
            data = pictures.picture(one.sha256)
            if data is None:
                logger.error(
                    "picture %s of inspection %s is missing or damaged", one.sha256, one.inspection_id
                )
                continue
            part = "" if one.part_id is None else f"{hashlib.sha256(one.part_id.encode()).hexdigest()[:16]}_"
            parts_told |= part != ""
            name = f"{category}/train/good/{part}{one.inspection_id}.{detect_format(data).suffix}"
            file.writestr(_member(name, datetime.fromtimestamp(one.created_ms / 1000, UTC)), data)
            del data  # it is in the pieces, and they may be taken slowly
            yield from pieces.take()
        if parts_told:
            file.writestr(_member(f"{category}/{PARTS}", begun), _PARTS_FILE)
    yield from pieces.take()


def _member(name: str, time: datetime) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, time.timetuple()[:6])
    member.external_attr = 0o644 << 16
    return member


class _Pieces(RawIOBase):
    """A file that is written to and taken from."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        """Give what was written, in pieces as they may wait to be sent."""
        taken, self._written = b"".join(self._written), []
        for begin in range(0, len(taken), PIECE_BYTES):
            yield taken[begin : begin + PIECE_BYTES]
