"""Reviews: what a person says of a part after looking at it."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, insert, select, update

from app.access import Caller
from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections, reviews
from app.feed.happenings import reviewed
from app.feed.log import append
from app.problems import Problem
from app.schemas.history import Verdict
from app.schemas.predict import Decision
from app.schemas.review import Review

_SHOWN: Final = ("revision", "verdict", "reviewer", "note", "key_id")


def add(
    database: Database,
    caller: Caller,
    inspection_id: str,
    verdict: Verdict,
    expected_revision: int,
    reviewer: str | None = None,
    note: str | None = None,
) -> Review:
    """Add a review; the inspection, its picture and its map are kept from now on.

    Args:
        database: of the history.
        caller: who reviews.
        inspection_id: what is reviewed.
        verdict: what the part is.
        expected_revision: how many reviews the inspection has, as the reviewer has seen it.
        reviewer: who looked at it.
        note: what else there is to say.

    Raises:
        Problem: unknown-inspection; forbidden, for another category than the caller's; conflict, if somebody
            else has reviewed it meanwhile.
    """
    review: dict[str, Any] = {
        "inspection_id": inspection_id,
        "revision": expected_revision + 1,
        "created_ms": clock.now_ms(),
        "verdict": verdict,
        "reviewer": reviewer,
        "note": note,
        "key_id": caller.key_id,
    }
    with database.write() as connection:
        inspection = _summary(connection, inspection_id)
        caller.require_category(inspection.category)
        changed = connection.execute(
            update(inspections)
            .where(inspections.c.id == inspection_id, inspections.c.review_revision == expected_revision)
            .values(review_revision=review["revision"], verdict=verdict)
        )
        if changed.rowcount == 0:
            # Read again: the update has waited for whoever was faster.
            now = _summary(connection, inspection_id)
            raise Problem(
                "conflict",
                f"The inspection is at revision {now.review_revision} (verdict {now.verdict or 'none'}); the "
                f"review expected {expected_revision}. Look at its reviews before adding another.",
            )
        connection.execute(insert(reviews).values(review))
        event = reviewed(inspection._asdict(), review["created_ms"], review["revision"], verdict)
        append(connection, [event])
    return _shown(review)


def of(database: Database, caller: Caller, inspection_id: str) -> list[Review]:
    """All reviews of an inspection, the first one first.

    Raises:
        Problem: unknown-inspection; forbidden, for another category than the caller's.
    """
    query = select(reviews).where(reviews.c.inspection_id == inspection_id).order_by(reviews.c.revision)
    with database.read() as connection:
        caller.require_category(_summary(connection, inspection_id).category)
        return [_shown(dict(row)) for row in connection.execute(query).mappings()]


def _shown(row: Mapping[str, Any]) -> Review:
    return Review(created=clock.iso(row["created_ms"]), **{name: row[name] for name in _SHOWN})


class _Summary(NamedTuple):
    id: str
    category: str
    station: str | None
    decision: Decision
    review_revision: int
    verdict: Verdict | None


def _summary(connection: Connection, inspection_id: str) -> _Summary:
    columns = inspections.c
    wanted = (columns.id, columns.category, columns.station, columns.decision)
    query = select(*wanted, columns.review_revision, columns.verdict)
    row = connection.execute(query.where(columns.id == inspection_id)).first()
    if row is None:
        raise Problem("unknown-inspection", "No inspection has this id, or retention has removed it.")
    return _Summary(*row)
