"""Reading the history: pages of inspections, one of them, a part's.

A page is found by the id it begins after (keyset paging), so it costs the same wherever it is in a history of
millions; for every combination of filters app/database/tables.py has an index in which the wanted rows stand
next to each other, or as good as.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, or_, select

from app.database.clock import first_id
from app.database.engine import Database
from app.database.planner_hints import unindexed
from app.database.tables import inspections
from app.schemas.history import InspectionSummary

_COLUMNS: Final = inspections.columns
_LISTED: Final = {*InspectionSummary.model_fields, "id", "created_ms", "review_revision", "verdict"}
# What lists show of an inspection.
SUMMARY: Final = tuple(column for column in _COLUMNS if column.name in _LISTED)
_EXPORT_ROWS: Final = 1000
# Whose index finds the fewest rows. A decision may be rarer than a station, but the stations' index has it.
_RAREST_FIRST: Final = ("part_id", "verdict", "station", "decision")


def is_elsewhere(station: ColumnElement[Any], stations: Collection[str]) -> ColumnElement[bool]:
    """Whether an inspection was made anywhere but at some stations, or names none."""
    return or_(station.is_(None), station.not_in(stations))


@dataclass(frozen=True)
class InspectionFilter:
    """Which inspections are wanted; what is None does not matter.

    Attributes:
        from_ms: made at this time or later, in milliseconds since 1970, UTC.
        to_ms: made before this time.
        categories: one of these.
    """

    category: str | None = None
    decision: str | None = None
    part_id: str | None = None
    station: str | None = None
    verdict: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    categories: frozenset[str] | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter in SQL, but for `categories`."""
        wanted = {name: getattr(self, name) for name in ("category", *_RAREST_FIRST)}
        given = {name: value for name, value in wanted.items() if value is not None}
        rarest = next((name for name in _RAREST_FIRST if name in given), None)
        # Each of these has an index with the category before it, but for parts, which are few pictures.
        index = {rarest} if rarest == "part_id" else {"category", rarest}
        conditions = [
            (_COLUMNS[name] if name in index else unindexed(_COLUMNS[name])) == value
            for name, value in given.items()
        ]
        if self.from_ms is not None:
            conditions.append(_COLUMNS.id >= first_id(self.from_ms))
        if self.to_ms is not None:
            conditions.append(_COLUMNS.id < first_id(self.to_ms))
        return conditions

    def one_by_one(self) -> list["InspectionFilter"]:
        """The filter, once for each of `categories`, and without these; itself where they do not matter.

        The rows of one category stand together in an index. Databases would go through those of several from
        the first to the last, and sort them to find the newest.
        """
        if self.categories is None:
            return [self]
        allowed = self.categories if self.category is None else self.categories & {self.category}
        return [replace(self, category=category, categories=None) for category in sorted(allowed)]


@dataclass(frozen=True)
class EarlierAnswer:
    """An inspection that an idempotency key has led to, with its answer in JSON and its heatmap's colours."""

    id: str
    request_sha256: str | None
    answer: str
    map_low: float
    map_middle: float


def find_page(
    connection: Connection, wanted: InspectionFilter, limit: int, after: str | None = None
) -> Sequence[Row[Any]]:
    """The newest inspections that a filter lets through, newest first; after an id, only older ones."""
    query = select(*SUMMARY).order_by(_COLUMNS.id.desc()).limit(limit)
    if after is not None:
        query = query.where(_COLUMNS.id < after)
    iterate_pages = (connection.execute(query.where(*one.conditions())).all() for one in wanted.one_by_one())
    return list(heapq.merge(*iterate_pages, key=attrgetter("id"), reverse=True))[:limit]


def iterate_pages(database: Database, wanted: InspectionFilter) -> Iterator[Sequence[Row[Any]]]:
    """All inspections that a filter lets through, newest first, in pages.

    Each is read in a transaction of its own: whoever takes them slowly holds nothing back.
    """
    after = None
    while True:
        with database.read() as connection:
            rows = find_page(connection, wanted, _EXPORT_ROWS, after)
        if rows:
            yield rows
        if len(rows) < _EXPORT_ROWS:
            return
        after = rows[-1].id


def find_inspection(connection: Connection, identifier: str) -> Row[Any] | None:
    """All columns of one inspection, or None."""
    return connection.execute(select(inspections).where(_COLUMNS.id == identifier)).one_or_none()


def find_idempotent(connection: Connection, key_id: str | None, key: str) -> EarlierAnswer | None:
    """The inspection that a key's idempotency key has led to, or None."""
    row = connection.execute(
        select(_COLUMNS.id, _COLUMNS.request_sha256, _COLUMNS.answer, _COLUMNS.map_low, _COLUMNS.map_middle)
        .where(_COLUMNS.idempotency_key == key, _COLUMNS.key_id.is_not_distinct_from(key_id))
        .order_by(_COLUMNS.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else EarlierAnswer(*row)
