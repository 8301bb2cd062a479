"""Reviewed images of the history: those with a verdict, and one of each part."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import func, select

from app.database import clock
from app.database.engine import Database
from app.database.planner_hints import unindexed
from app.database.tables import inspections
from app.history.queries import is_elsewhere
from app.schemas.history import Verdict

_COLUMNS: Final = inspections.columns
_PAGE: Final = 500


class ReviewedInspection(NamedTuple):
    """A reviewed image; the part_id may come from another inspection of it."""

    inspection_id: str
    created_ms: int
    sha256: str
    part_id: str | None


def find_images(
    database: Database,
    category: str,
    verdict: Verdict = "good",
    *,
    station: str | None = None,
    without: Sequence[str] = (),
    since_ms: int = 0,
    audit: bool | None = None,
    newest_first: bool = False,
) -> Iterator[ReviewedInspection]:
    """Yield the images of a category whose latest review has a verdict, each once and oldest first.

    An image that another review contradicts is left out. Pages are read one by one, so concurrent reviews may
    or may not be included.

    Args:
        station: only images of this station; None for all except those of the stations `without`.
        since_ms: earliest time, in milliseconds since 1970, UTC.
        audit: only images of the audit sample, or only others; None for both.
    """
    conditions = [_COLUMNS.category == category, _COLUMNS.verdict == verdict, _COLUMNS.has_pictures]
    if audit is not None:
        conditions.append(_COLUMNS.audit if audit else ~_COLUMNS.audit)
    if station is not None:
        conditions.append(_COLUMNS.station == station)
    elif without:
        conditions.append(is_elsewhere(_COLUMNS.station, without))
    last = clock.first_id(since_ms) if since_ms > 0 else ""
    if newest_first:
        conditions.append(_COLUMNS.id > last)
        last = "g"  # after all hexadecimal digits
    columns = (_COLUMNS.id, _COLUMNS.created_ms, _COLUMNS.image_sha256, _COLUMNS.part_id)
    order = _COLUMNS.id.desc() if newest_first else _COLUMNS.id
    reviewed = select(*columns).where(*conditions).order_by(order).limit(_PAGE)
    seen: set[bytes] = set()
    while True:
        beyond = _COLUMNS.id < last if newest_first else _COLUMNS.id > last
        with database.read() as connection:
            page = [ReviewedInspection(*row) for row in connection.execute(reviewed.where(beyond))]
            same = (
                _COLUMNS.image_sha256.in_({image.sha256 for image in page}),
                unindexed(_COLUMNS.category) == category,
            )
            others = select(_COLUMNS.image_sha256).where(*same, unindexed(_COLUMNS.verdict) != verdict)
            contradicted = set(connection.scalars(others))
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
        last = page[-1].inspection_id


def find_images_of_parts(
    database: Database, category: str, images: Iterable[ReviewedInspection], *, audit: bool = False
) -> dict[str, set[str]]:
    """Find the sha256 of all images of some images' parts, with any verdict, or only of audited ones."""
    of_category = (
        select(_COLUMNS.part_id, _COLUMNS.image_sha256)
        .where(unindexed(_COLUMNS.category) == category)
        .distinct()
    )
    if audit:
        of_category = of_category.where(_COLUMNS.audit)
    ordered = sorted({image.part_id for image in images if image.part_id is not None})
    found: defaultdict[str, set[str]] = defaultdict(set)
    for start in range(0, len(ordered), _PAGE):
        of_some = of_category.where(_COLUMNS.part_id.in_(ordered[start : start + _PAGE]))
        with database.read() as connection:
            for part, sha256 in connection.execute(of_some):
                found[part].add(sha256)
    return found


def pick_one_per_part(
    images: Sequence[ReviewedInspection], of_parts: Mapping[str, set[str]], is_known: Callable[[str], bool]
) -> list[ReviewedInspection]:
    """Pick the image with the smallest sha256 of each part, which nobody can select.

    An image without a part_id counts as a part of its own, see `flows.fastflow.calibration.images_per_part`.

    Args:
        images: the images to pick from.
        of_parts: from `find_images_of_parts`.
        is_known: tells by the sha256 if a model knows an image; parts with one are left out.
    """
    by_part: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        by_part[image.part_id or image.sha256].add(image.sha256)
    picked = {
        min(own) for part, own in by_part.items() if not any(map(is_known, own | of_parts.get(part, set())))
    }
    return [image for image in images if image.sha256 in picked]
