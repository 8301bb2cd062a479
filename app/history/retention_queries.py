"""Inspections that retention deletes, in a transaction of the caller."""

from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, insert, select, update

from app.database.clock import first_id
from app.database.tables import inspections, retention
from app.history.rates import DECISIONS
from app.schemas.predict import Decision

# Inspections with a decision and outside the audit sample, or those of the audit sample.
Kind = Decision | Literal["audit"]
# Inspections deleted in one step; the writer waits meanwhile.
CHUNK: Final = 200

_COLUMNS = inspections.columns


def _of_kind(kind: Kind) -> list[ColumnElement[bool]]:
    return [_COLUMNS.audit] if kind == "audit" else [_COLUMNS.decision == kind, ~_COLUMNS.audit]


def older_than(kind: Kind, before_ms: int) -> list[ColumnElement[bool]]:
    """Return the conditions of unreviewed inspections from before a time."""
    return [*_of_kind(kind), _COLUMNS.id < first_id(before_ms), _COLUMNS.review_revision == 0]


def find_oldest(connection: Connection, to_free: int) -> list[str]:
    """Return the next inspections to lose their files, PASS first, the audit sample last."""
    ids: list[str] = []
    kinds: tuple[Kind, ...] = (*DECISIONS, "audit")
    for kind in kinds:
        query = (
            select(_COLUMNS.id, (_COLUMNS.map_bytes + _COLUMNS.image_bytes).label("size"))
            .where(*_of_kind(kind), _COLUMNS.has_pictures, _COLUMNS.review_revision == 0)
            .order_by(_COLUMNS.id)
            .limit(CHUNK - len(ids))
        )
        for row in connection.execute(query):
            if to_free <= 0:
                return ids
            ids.append(row.id)
            to_free -= row.size
    return ids


def record_pass(connection: Connection, kind: Kind, before_ms: int, *, deleted: bool) -> None:
    """Record a pass by age over the inspections of a kind."""
    row = retention.c.decision == kind
    known = connection.scalar(select(retention.c.deleted_before_ms).where(row))
    noted = {"last_before_ms": before_ms, "deleted_before_ms": known}
    if deleted:
        noted["deleted_before_ms"] = max(known or 0, before_ms)
    if not connection.execute(update(retention).where(row).values(noted)).rowcount:
        connection.execute(insert(retention).values(decision=kind, **noted))
