"""What a shift was made of: its stations, its hours, and the parts that stood out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, case, func, select

from app.database.tables import inspections
from app.history.queries import SUMMARY
from app.history.rates import DECISIONS
from app.history.reports import Span
from app.schemas.predict import Decision

HOUR_MS: Final = 3_600_000
MOST_REJECTS: Final = 6  # that are shown of a category
MOST_STATIONS: Final = 200  # likewise: whoever gives every part one of its own gets no million
_COLUMNS: Final = inspections.columns

Counts = Mapping[Decision, int]


@dataclass(frozen=True)
class Details:
    """A category in a shift.

    Attributes:
        stations: decisions by station, None for inspections without one; by name, None first. The 200 with
            most inspections.
        more_stations: whether there are others.
        hours: decisions by the hour's begin, in milliseconds since 1970, UTC; hours without any are left out.
        rejects: rows with the columns `SUMMARY` of rejected inspections: of each station and version that
            which is least like good parts, then the second of each, and so on; by their p-values.
    """

    stations: Mapping[str | None, Counts]
    more_stations: bool
    hours: Mapping[int, Counts]
    rejects: Sequence[Any]


def details(connection: Connection, category: str, span: Span, station: str | None = None) -> Details:
    """Take a category's shift apart.

    Args:
        connection: where to read.
        category: the category.
        span: the time.
        station: only inspections of this one.
    """
    wanted = span.conditions_for(category, station)
    by_station = (
        select(_COLUMNS.station, *(func.sum(case((_COLUMNS.decision == d, 1), else_=0)) for d in DECISIONS))
        .where(*wanted)
        .group_by(_COLUMNS.station)
        .order_by(func.count().desc(), _COLUMNS.station)
        .limit(MOST_STATIONS + 1)
    )
    # Whole numbers: both databases divide them without a rest.
    hour = (_COLUMNS.created_ms // HOUR_MS).label("hour")
    by_hour = select(hour, _COLUMNS.decision, func.count()).where(*wanted).group_by(hour, _COLUMNS.decision)
    # p-values compare across versions, as scores do not; but none is below 1 / (n + 1), so that those of a
    # station with few calibration images would never come: the first of each station and version do.
    by_p_value = (_COLUMNS.p_value, _COLUMNS.score.desc(), _COLUMNS.id)
    rank = func.row_number().over(partition_by=(_COLUMNS.station, _COLUMNS.version), order_by=by_p_value)
    ranked = select(*SUMMARY, rank.label("rank")).where(*wanted, _COLUMNS.decision == "REJECT").subquery().c
    worst = (
        select(*(ranked[column.name] for column in SUMMARY))
        .order_by(ranked.rank, ranked.p_value, ranked.score.desc(), ranked.id)
        .limit(MOST_REJECTS)
    )
    found = connection.execute(by_station).all()
    stations: dict[str | None, dict[Decision, int]] = {
        name: {d: int(n) for d, n in zip(DECISIONS, counts, strict=True) if n}
        for name, *counts in found[:MOST_STATIONS]
    }
    hours: dict[int, dict[Decision, int]] = {}
    for number, decision, n in connection.execute(by_hour):
        hours.setdefault(number * HOUR_MS, {})[decision] = n
    return Details(
        {name: stations[name] for name in sorted(stations, key=lambda name: (name is not None, name or ""))},
        len(found) > MOST_STATIONS,
        dict(sorted(hours.items())),
        connection.execute(worst).all(),
    )
