"""Browsing the history: an inspection's neighbours, stations, counts, a line of scores."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import JSON, Connection, cast, func, select, type_coerce

from app.database.tables import inspections
from app.history import queries
from app.history.queries import InspectionFilter
from app.history.rates import DECISIONS
from app.schemas.predict import Decision

_COLUMNS: Final = inspections.columns
# A list to choose from; whoever gives every part a station of its own gets no list of a million.
_MOST_STATIONS: Final = 200


class AdjacentInspections(NamedTuple):
    """The inspections next to one in time, of those that a filter lets through: their ids, or None."""

    older: str | None
    newer: str | None


def find_adjacent(connection: Connection, wanted: InspectionFilter, identifier: str) -> AdjacentInspections:
    """Find what stands before and after an inspection."""
    older = queries.find_page(connection, wanted, 1, identifier)
    later = select(_COLUMNS.id).where(_COLUMNS.id > identifier).order_by(_COLUMNS.id).limit(1)
    newer = [connection.scalar(later.where(*one.conditions())) for one in wanted.one_by_one()]
    return AdjacentInspections(older[0].id if older else None, min(filter(None, newer), default=None))


def list_stations(connection: Connection, categories: Collection[str] | None) -> list[str]:
    """The stations that inspections of some categories, or of all, came from: sorted, at most 200.

    Each is found by one step in an index, so it costs the same in a history of millions.
    """
    found: set[str] = set()
    for category in [None] if categories is None else sorted(categories):
        following = select(func.min(_COLUMNS.station))
        if category is not None:
            following = following.where(_COLUMNS.category == category)
        last: str | None = ""
        while last is not None and len(found) < _MOST_STATIONS:
            last = connection.scalar(following.where(_COLUMNS.station > last))
            if last is not None:
                found.add(last)
    return sorted(found)


def count_decisions(connection: Connection, wanted: InspectionFilter) -> dict[Decision, int]:
    """How many inspections a filter lets through by each decision, whichever it names; of indexes alone."""
    counted = select(func.count()).select_from(inspections)
    return {
        decision: sum(
            connection.scalar(counted.where(*replace(one, decision=decision).conditions())) or 0
            for one in wanted.one_by_one()
        )
        for decision in DECISIONS
    }


class ScorePoint(NamedTuple):
    """An inspection's score, and the limits that it was decided by; `review` is None without a band."""

    id: str
    created_ms: int
    version: str
    decision: str
    score: float
    part_id: str | None
    verdict: str | None
    reject: float
    review: float | None


def load_scores(
    connection: Connection, wanted: InspectionFilter, limit: int, upto: str | None = None
) -> list[ScorePoint]:
    """The scores of the latest inspections that a filter for one category lets through, up to an id.

    Oldest first.
    """
    # Limits come out of the answers' JSON, which is not sent from the database whole. To SQLite it is text;
    # its CAST would make a number of it.
    sqlite = connection.dialect.name == "sqlite"
    answer = type_coerce(_COLUMNS.answer, JSON) if sqlite else cast(_COLUMNS.answer, JSON)
    limits = (answer["threshold"][name].as_float() for name in ScorePoint._fields[-2:])
    query = (
        select(*(_COLUMNS[name] for name in ScorePoint._fields[:-2]), *limits)
        .where(*wanted.conditions())
        .order_by(_COLUMNS.id.desc())
        .limit(limit)
    )
    if upto is not None:
        query = query.where(_COLUMNS.id <= upto)
    return [ScorePoint(*row) for row in reversed(connection.execute(query).all())]
