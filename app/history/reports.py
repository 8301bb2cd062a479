"""Counts of decisions and verdicts over a time: what rates and shift reports are made of."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from app.database.clock import first_id
from app.database.tables import inspections, retention
from app.history.rates import DECISIONS
from app.schemas.predict import Decision
from app.schemas.reports import Counts

_COLUMNS = inspections.columns


@dataclass(frozen=True)
class Span:
    """A time, in milliseconds since 1970, UTC.

    Attributes:
        from_ms: its begin, which belongs to it.
        to_ms: its end, which does not.
    """

    from_ms: int
    to_ms: int

    def conditions(self) -> list[ColumnElement[bool]]:
        """The inspections that were made in it, in SQL."""
        return [_COLUMNS.id >= first_id(self.from_ms), _COLUMNS.id < first_id(self.to_ms)]

    def conditions_for(self, category: str, station: str | None) -> list[ColumnElement[bool]]:
        """Those of a category in it, of one station unless that is None."""
        of_station = [] if station is None else [_COLUMNS.station == station]
        return [_COLUMNS.category == category, *self.conditions(), *of_station]


def complete(connection: Connection, span: Span) -> Span:
    """The latter part of a time, from which no decision's inspections have been deleted by age.

    Where passed ones are gone and rejected ones are not, everything would seem to have been rejected.
    """
    deleted_before = connection.scalar(select(func.max(retention.c.deleted_before_ms))) or 0
    return Span(min(max(span.from_ms, deleted_before), span.to_ms), span.to_ms)


def counts(
    connection: Connection, category: str, span: Span, station: str | None = None
) -> dict[Decision, Counts]:
    """Count a category's inspections by decision, and the verdicts on them; of one station, or of all."""
    wanted = span.conditions_for(category, station)
    counted = select(func.count()).select_from(inspections).where(*wanted)
    # One count per decision reads an index alone, where one query of all would sort rows.
    inspected = {d: connection.scalar(counted.where(_COLUMNS.decision == d)) or 0 for d in DECISIONS}
    verdicts = (
        select(_COLUMNS.decision, _COLUMNS.verdict, func.count())
        .where(*wanted, _COLUMNS.verdict.in_(("good", "defect")))
        .group_by(_COLUMNS.decision, _COLUMNS.verdict)
    )
    found = {(decision, verdict): n for decision, verdict, n in connection.execute(verdicts)}
    return {
        d: Counts(
            inspections=inspected[d],
            reviewed_good=found.get((d, "good"), 0),
            reviewed_defect=found.get((d, "defect"), 0),
        )
        for d in DECISIONS
    }


def versions(
    connection: Connection, span: Span, categories: Collection[str] | None, station: str | None = None
) -> dict[str, dict[str, int]]:
    """How many inspections each version answered in a time, by category; of some categories, or of all."""
    query = (
        select(_COLUMNS.category, _COLUMNS.version, func.count())
        .where(*span.conditions())
        .group_by(_COLUMNS.category, _COLUMNS.version)
        .order_by(_COLUMNS.category, _COLUMNS.version)
    )
    if categories is not None:
        query = query.where(_COLUMNS.category.in_(categories))
    if station is not None:
        query = query.where(_COLUMNS.station == station)
    found: dict[str, dict[str, int]] = {}
    for category, version, n in connection.execute(query):
        found.setdefault(category, {})[version] = n
    return found
