"""Queries of the history: pages of inspections, and single ones.

Keyset paging finds a page by the id before it, so every page costs the same in a history of millions. For
every combination of filters, app/database/tables.py has an index in which matching rows are adjacent, or
nearly so.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Text, or_, select, type_coerce

from app.database.clock import first_id
from app.database.engine import Database
from app.database.planner_hints import unindexed
from app.database.tables import inspections
from app.schemas.history import InspectionSummary

_COLUMNS: Final = inspections.columns
_LISTED: Final = {*InspectionSummary.model_fields, "id", "created_ms", "review_revision", "verdict", "kind"}
# Columns of an inspection in lists.
SUMMARY: Final = tuple(column for column in _COLUMNS if column.name in _LISTED)
_EXPORT_ROWS: Final = 1000
# The first given column selects the index. A decision may be rarer than a station, but the index of stations
# includes it.
_RAREST_FIRST: Final = ("part_id", "file_name", "verdict", "station", "decision")


def is_elsewhere(station: ColumnElement[Any], stations: Collection[str]) -> ColumnElement[bool]:
    """Return a condition: the inspection names none of these stations."""
    return or_(station.is_(None), station.not_in(stations))


@dataclass(frozen=True)
class InspectionFilter:
    """Criteria of inspections; None means any.

    Attributes:
        from_ms: earliest time, in milliseconds since 1970, UTC.
        to_ms: end of the time span, exclusive.
        warning: a code among the warnings.
        min_margin, max_margin: least and largest score minus the threshold of REJECT; they need a category.
        categories: allowed categories.
    """

    category: str | None = None
    decision: str | None = None
    part_id: str | None = None
    station: str | None = None
    verdict: str | None = None
    audit: bool | None = None
    reviewed: bool | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    categories: frozenset[str] | None = None
    file_name: str | None = None
    warning: str | None = None
    min_margin: float | None = None
    max_margin: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions, without `categories`."""
        where = {name: getattr(self, name) for name in ("category", *_RAREST_FIRST)}
        given = {name: value for name, value in where.items() if value is not None}
        rarest = next((name for name in _RAREST_FIRST if name in given), None)
        # Each of these has an index that begins with the category, except parts and files, which have few
        # images. The audit sample and warnings have their own; margins are in that of the category.
        index: set[str | None] = {"category", rarest}
        if self.audit:
            index = set()
        elif rarest in ("part_id", "file_name"):
            index = {rarest}
        elif self.warning:
            index = set()
        elif self.min_margin is not None or self.max_margin is not None:
            index = {"category"}
        conditions = [
            (_COLUMNS[name] if name in index else unindexed(_COLUMNS[name])) == value
            for name, value in given.items()
        ]
        if self.audit is not None:
            conditions.append(_COLUMNS.audit if self.audit else ~_COLUMNS.audit)
        if self.reviewed is not None:
            verdict = _COLUMNS.verdict
            conditions.append(
                verdict.in_(("good", "defect")) if self.reviewed else unindexed(verdict).is_(None)
            )
        if self.warning is not None:
            warnings = type_coerce(_COLUMNS.warnings, Text)
            conditions += [warnings.is_not(None), warnings.contains(self.warning)]
        if self.min_margin is not None:
            conditions.append(_COLUMNS.margin >= self.min_margin)
        if self.max_margin is not None:
            conditions.append(_COLUMNS.margin <= self.max_margin)
        if self.from_ms is not None:
            conditions.append(_COLUMNS.id >= first_id(self.from_ms))
        if self.to_ms is not None:
            conditions.append(_COLUMNS.id < first_id(self.to_ms))
        return conditions

    def split_by_category(self) -> list["InspectionFilter"]:
        """Return one filter per allowed category, or this filter if all are allowed.

        An index has the rows of one category together. For several categories at once, databases would read
        and sort all their rows to find the newest.
        """
        if self.categories is None:
            return [self]
        allowed = self.categories if self.category is None else self.categories & {self.category}
        return [replace(self, category=category, categories=None) for category in sorted(allowed)]


@dataclass(frozen=True)
class EarlierAnswer:
    """The earlier inspection of an idempotency key: its answer as JSON and its colour scale."""

    id: str
    request_sha256: str | None
    answer: str
    map_low: float
    map_middle: float


def find_page(
    connection: Connection, where: InspectionFilter, limit: int, after: str | None = None
) -> Sequence[Row[Any]]:
    """Return the newest matching inspections, newest first; with `after`, only older ones."""
    query = select(*SUMMARY).order_by(_COLUMNS.id.desc()).limit(limit)
    if after is not None:
        query = query.where(_COLUMNS.id < after)
    pages = (
        connection.execute(query.where(*single.conditions())).all() for single in where.split_by_category()
    )
    return list(heapq.merge(*pages, key=attrgetter("id"), reverse=True))[:limit]


def iterate_pages(database: Database, where: InspectionFilter) -> Iterator[Sequence[Row[Any]]]:
    """Yield all matching inspections in pages, newest first.

    Each page has its own transaction, so a slow reader blocks nothing.
    """
    after = None
    while True:
        with database.read() as connection:
            rows = find_page(connection, where, _EXPORT_ROWS, after)
        if rows:
            yield rows
        if len(rows) < _EXPORT_ROWS:
            return
        after = rows[-1].id


def find_inspection(connection: Connection, identifier: str) -> Row[Any] | None:
    """Return all columns of one inspection, or None."""
    return connection.execute(select(inspections).where(_COLUMNS.id == identifier)).one_or_none()


def find_idempotent(connection: Connection, key_id: str | None, key: str) -> EarlierAnswer | None:
    """Return the inspection of a caller's idempotency key, or None."""
    row = connection.execute(
        select(_COLUMNS.id, _COLUMNS.request_sha256, _COLUMNS.answer, _COLUMNS.map_low, _COLUMNS.map_middle)
        .where(_COLUMNS.idempotency_key == key, _COLUMNS.key_id.is_not_distinct_from(key_id))
        .order_by(_COLUMNS.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else EarlierAnswer(*row)
