"""Queries for browsing: adjacent inspections, stations, counts, a series of scores."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import JSON, Connection, cast, func, select, type_coerce

from app.database.tables import inspections
from app.history import queries
from app.history.queries import InspectionFilter
from app.history.rates import DECISIONS
from app.schemas.predict import Decision

_COLUMNS: Final = inspections.columns
# Some clients send another station with every part: such a list must not grow to a million.
_MAX_STATIONS: Final = 200


class AdjacentInspections(NamedTuple):
    """Ids of the next older and the next newer matching inspection; None at the ends."""

    older: str | None
    newer: str | None


def find_adjacent(connection: Connection, where: InspectionFilter, identifier: str) -> AdjacentInspections:
    """Find the matching inspections before and after an inspection."""
    older = queries.find_page(connection, where, 1, identifier)
    later = select(_COLUMNS.id).where(_COLUMNS.id > identifier).order_by(_COLUMNS.id).limit(1)
    newer = [connection.scalar(later.where(*single.conditions())) for single in where.split_by_category()]
    return AdjacentInspections(older[0].id if older else None, min(filter(None, newer), default=None))


def list_stations(connection: Connection, categories: Collection[str] | None) -> list[str]:
    """List the stations of inspections in some categories, or in all: sorted, at most 200.

    Each station costs one step in an index, however large the history is.
    """
    found: set[str] = set()
    for category in [None] if categories is None else sorted(categories):
        following = select(func.min(_COLUMNS.station))
        if category is not None:
            following = following.where(_COLUMNS.category == category)
        last: str | None = ""
        while last is not None and len(found) < _MAX_STATIONS:
            last = connection.scalar(following.where(_COLUMNS.station > last))
            if last is not None:
                found.add(last)
    return sorted(found)


def count_inspections(connection: Connection, where: InspectionFilter) -> int:
    """Count matching inspections; reads indexes only."""
    counted = select(func.count()).select_from(inspections)
    return sum(
        connection.scalar(counted.where(*single.conditions())) or 0 for single in where.split_by_category()
    )


def count_decisions(connection: Connection, where: InspectionFilter) -> dict[Decision, int]:
    """Count matching inspections by decision; ignores the filter's own decision."""
    return {d: count_inspections(connection, replace(where, decision=d)) for d in DECISIONS}


def count_passed(
    connection: Connection, where: InspectionFilter, starts_ms: Sequence[int], length_ms: int
) -> list[tuple[int, int]]:
    """Count passed and all matching inspections in time spans of one length; reads indexes only."""
    spans = (replace(where, decision=None, from_ms=start, to_ms=start + length_ms) for start in starts_ms)
    return [
        (count_inspections(connection, replace(span, decision="PASS")), count_inspections(connection, span))
        for span in spans
    ]


class ScorePoint(NamedTuple):
    """An inspection's score and thresholds; `review` is None without a review band."""

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
    connection: Connection, where: InspectionFilter, limit: int, upto: str | None = None
) -> list[ScorePoint]:
    """Load the scores of the latest matching inspections of one category, oldest first.

    With `upto`, the series ends at that id.
    """
    # The database extracts the thresholds, so the answers' JSON is not transferred. SQLite stores JSON as
    # text, and its CAST would turn the text into a number.
    sqlite = connection.dialect.name == "sqlite"
    answer = type_coerce(_COLUMNS.answer, JSON) if sqlite else cast(_COLUMNS.answer, JSON)
    limits = (answer["threshold"][name].as_float() for name in ScorePoint._fields[-2:])
    query = (
        select(*(_COLUMNS[name] for name in ScorePoint._fields[:-2]), *limits)
        .where(*where.conditions())
        .order_by(_COLUMNS.id.desc())
        .limit(limit)
    )
    if upto is not None:
        query = query.where(_COLUMNS.id <= upto)
    return [ScorePoint(*row) for row in reversed(connection.execute(query).all())]
