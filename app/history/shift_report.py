"""Shift reports: decisions by station and hour, the worst parts, and changes."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import Connection, func, select

from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections
from app.history import changes, decision_counts, export
from app.history.decision_counts import TimeSpan
from app.history.drift import DriftMonitor, DriftState
from app.history.queries import SUMMARY
from app.schemas.predict import Decision
from app.schemas.reports import (
    DriftSummary,
    HourCounts,
    KindCount,
    ShiftCategory,
    ShiftChange,
    ShiftDetails,
    ShiftReport,
    StationCounts,
)

HOUR_MS: Final = 3_600_000
MAX_REJECTS: Final = 6  # shown per category
_MAX_CHANGES: Final = 100
_COLUMNS: Final = inspections.columns


def shift_report(
    database: Database,
    drift: DriftMonitor,
    requested: TimeSpan,
    categories: Collection[str] | None,
    station: str | None,
) -> ShiftReport:
    """Report on a time span, for some categories or all, and one station or all."""
    with database.read() as connection:
        span = decision_counts.skip_deleted(connection, requested)
        versions = decision_counts.count_versions(connection, span, categories, station)
        rates = {
            category: decision_counts.estimate_error_rates(connection, category, requested, station)
            for category in versions
        }
        parts = {category: details(connection, category, span, station) for category in versions}
        changed = changes.find_changes(connection, requested, categories, _MAX_CHANGES + 1)
    return ShiftReport(
        from_=clock.iso(span.from_ms),
        to=clock.iso(span.to_ms),
        station=station,
        categories=[
            ShiftCategory(
                category=category,
                versions=versions[category],
                drift=_drift_now(drift, category, station),
                **dict(rates[category]),
                **dict(parts[category]),
            )
            for category in versions
        ],
        changes=[_change(row) for row in changed[-_MAX_CHANGES:]],
        more_changes=len(changed) > _MAX_CHANGES,
    )


def details(
    connection: Connection, category: str, span: TimeSpan, station: str | None = None
) -> ShiftDetails:
    """Count a category's decisions by station and hour, and select its worst rejects."""
    where = span.filter(category, station).conditions()
    by_station = select(_COLUMNS.station, _COLUMNS.decision, func.count()).where(*where)
    stations: dict[str | None, dict[Decision, int]] = {}
    for name, decision, n in connection.execute(by_station.group_by(_COLUMNS.station, _COLUMNS.decision)):
        stations.setdefault(name, {})[decision] = n
    # Both databases use integer division here.
    hour = (_COLUMNS.created_ms // HOUR_MS).label("hour")
    by_hour = select(hour, _COLUMNS.decision, func.count()).where(*where).group_by(hour, _COLUMNS.decision)
    hours: dict[int, dict[Decision, int]] = {}
    for number, decision, n in connection.execute(by_hour):
        hours.setdefault(number, {})[decision] = n
    # p-values compare across versions, unlike scores, but none is below 1 / (n + 1). So rejects of a station
    # with few calibration images would never be shown: take the first of each station and version first.
    by_p_value = (_COLUMNS.p_value, _COLUMNS.score.desc(), _COLUMNS.id)
    rank = func.row_number().over(partition_by=(_COLUMNS.station, _COLUMNS.version), order_by=by_p_value)
    ranked = select(*SUMMARY, rank.label("rank")).where(*where, _COLUMNS.decision == "REJECT").subquery().c
    worst = (
        select(*(ranked[column.name] for column in SUMMARY))
        .order_by(ranked.rank, ranked.p_value, ranked.score.desc(), ranked.id)
        .limit(MAX_REJECTS)
    )
    return ShiftDetails(
        stations=[
            StationCounts(station=name, decisions=stations[name])
            for name in sorted(stations, key=lambda name: (name is not None, name or ""))
        ],
        hours=[
            HourCounts(from_=clock.iso(number * HOUR_MS), decisions=hours[number]) for number in sorted(hours)
        ],
        rejects=[export.to_summary(row) for row in connection.execute(worst)],
        kinds=count_kinds(connection, category, span, station),
    )


def kinds_of_defect(
    database: Database, requested: TimeSpan, categories: Collection[str] | None, station: str | None
) -> dict[str, list[KindCount]]:
    """Count the kinds of defect of each category in a shift report; arguments as of `shift_report`."""
    with database.read() as connection:
        span = decision_counts.skip_deleted(connection, requested)
        versions = decision_counts.count_versions(connection, span, categories, station)
        return {category: count_kinds(connection, category, span, station) for category in versions}


def count_kinds(
    connection: Connection, category: str, span: TimeSpan, station: str | None = None
) -> list[KindCount]:
    """Count a category's inspections reviewed as defects by kind, the most frequent first."""
    defects = replace(span.filter(category, station), verdict="defect").conditions()
    query = select(_COLUMNS.kind, func.count()).where(*defects).group_by(_COLUMNS.kind)
    found = sorted(connection.execute(query), key=lambda row: (-row[1], row[0] is None, row[0] or ""))
    sums = list(accumulate(n for _, n in found))
    return [
        KindCount(kind=kind, inspections=n, share=n / sums[-1], cumulative_share=upto / sums[-1])
        for (kind, n), upto in zip(found, sums, strict=True)
    ]


def _drift_now(drift: DriftMonitor, category: str, station: str | None) -> DriftSummary | None:
    """Return the drift of a station; without one, a window of the category that alarms if any does."""
    state: DriftState | None
    if station is not None:
        state = drift.state(category, station)
    else:
        windows = drift.windows(category)
        state = next((window for window in windows if window.alarm), windows[0] if windows else None)
    return None if state is None else DriftSummary.model_validate(state)


def _change(row: Mapping[str, Any]) -> ShiftChange:
    """Convert an audit log entry, without details for administrators such as polygons."""
    detail = changes.parse_detail(row)
    before, after = changes.before_and_after(row["action"], row["target"], detail)
    return ShiftChange(
        created=clock.iso(row["created_ms"]),
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        station=detail.get("station"),
        reason=detail.get("reason"),
        before=before,
        after=after,
    )
