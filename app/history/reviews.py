"""Reviews: verdicts of people on inspected parts."""

from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from app.auth.permissions import Caller
from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections, reviews
from app.errors.problems import Problem
from app.events.log import append
from app.events.new_events import review_event
from app.history import queries
from app.schemas.history import Verdict
from app.schemas.review import Review


def add_review(
    database: Database,
    caller: Caller,
    inspection_id: str,
    verdict: Verdict,
    expected_revision: int,
    reviewer: str | None = None,
    note: str | None = None,
    kind: str | None = None,
) -> Review:
    """Add a review; retention keeps the inspection, its image and its map from then on.

    Raises:
        Problem: unknown-inspection; conflict, if there are not `expected_revision` reviews.
    """
    row: dict[str, Any] = {
        "revision": expected_revision + 1,
        "created_ms": clock.now_ms(),
        "verdict": verdict,
        "kind": kind,
        "reviewer": reviewer,
        "note": note,
        "key_id": caller.key_id,
    }
    with database.write() as connection:
        changed = connection.execute(
            update(inspections)
            .where(inspections.c.id == inspection_id, inspections.c.review_revision == expected_revision)
            .values(review_revision=row["revision"], verdict=verdict, kind=kind)
        )
        # Read after the update, which waits for a concurrent review.
        now = _require_inspection(connection, inspection_id)
        if changed.rowcount == 0:
            raise Problem(
                "conflict",
                f"The inspection is at revision {now.review_revision} (verdict {now.verdict or 'none'}); the "
                f"review expected {expected_revision}. Look at its reviews before adding another.",
            )
        connection.execute(insert(reviews).values(inspection_id=inspection_id, **row))
        append(connection, [review_event(now._asdict(), row["created_ms"])])
    return _shown(**row)


def list_reviews(database: Database, inspection_id: str) -> list[Review]:
    """List the reviews of an inspection, oldest first, or raise the problem unknown-inspection."""
    columns = [column for column in reviews.columns if column.name in Review.model_fields]
    query = select(*columns, reviews.c.created_ms).where(reviews.c.inspection_id == inspection_id)
    with database.read() as connection:
        _require_inspection(connection, inspection_id)
        rows = connection.execute(query.order_by(reviews.c.revision)).mappings()
        return [_shown(**row) for row in rows]


def _require_inspection(connection: Connection, inspection_id: str) -> Row[Any]:
    row = queries.find_inspection(connection, inspection_id)
    if row is None:
        raise Problem("unknown-inspection", "No inspection has this id, or retention has removed it.")
    return row


def _shown(created_ms: int, **fields: Any) -> Review:
    return Review(created=clock.iso(created_ms), **fields)
