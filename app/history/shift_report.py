"""The report on a shift: decisions by station and hour, the worst parts, and what was changed."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import Connection, func, select

from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections
from app.history import changes, decision_counts, export
from app.history.decision_counts import TimeSpan
from app.history.drift import DriftMonitor, DriftState
from app.history.queries import SUMMARY
from app.history.rates import estimate_escape, estimate_overkill
from app.schemas.predict import Decision
from app.schemas.reports import (
    DriftNow,
    HourCounts,
    ShiftCategory,
    ShiftChange,
    ShiftDetails,
    ShiftReport,
    StationCounts,
)

HOUR_MS: Final = 3_600_000
MOST_REJECTS: Final = 6  # that are shown of a category
_MOST_CHANGES: Final = 100
_COLUMNS: Final = inspections.columns


def shift_report(
    database: Database,
    drift: DriftMonitor,
    asked: TimeSpan,
    categories: Collection[str] | None,
    station: str | None,
) -> ShiftReport:
    """Sum up a time; of some categories, or of all, and of one station, or of all."""
    with database.read() as connection:
        span = decision_counts.skip_deleted(connection, asked)
        versions = decision_counts.count_versions(connection, span, categories, station)
        counts = {one: decision_counts.count_decisions(connection, one, span, station) for one in versions}
        parts = {one: details(connection, one, span, station) for one in versions}
        changed = changes.find_changes(connection, asked, categories, _MOST_CHANGES + 1)
    return ShiftReport(
        from_=clock.iso(span.from_ms),
        to=clock.iso(span.to_ms),
        station=station,
        categories=[
            ShiftCategory(
                category=one,
                versions=versions[one],
                decisions=counts[one],
                overkill=estimate_overkill(counts[one]),
                escape=estimate_escape(counts[one]),
                drift=_drift_now(drift, one, station),
                **dict(parts[one]),
            )
            for one in versions
        ],
        changes=[_change(row) for row in changed[-_MOST_CHANGES:]],
        more_changes=len(changed) > _MOST_CHANGES,
    )


def details(
    connection: Connection, category: str, span: TimeSpan, station: str | None = None
) -> ShiftDetails:
    """Take a category's shift apart, by station and hour; rejects are sorted by their p-values."""
    wanted = span.filter(category, station).conditions()
    by_station = select(_COLUMNS.station, _COLUMNS.decision, func.count()).where(*wanted)
    stations: dict[str | None, dict[Decision, int]] = {}
    for name, decision, n in connection.execute(by_station.group_by(_COLUMNS.station, _COLUMNS.decision)):
        stations.setdefault(name, {})[decision] = n
    # Whole numbers: both databases divide them without a rest.
    hour = (_COLUMNS.created_ms // HOUR_MS).label("hour")
    by_hour = select(hour, _COLUMNS.decision, func.count()).where(*wanted).group_by(hour, _COLUMNS.decision)
    hours: dict[int, dict[Decision, int]] = {}
    for number, decision, n in connection.execute(by_hour):
        hours.setdefault(number, {})[decision] = n
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
    return ShiftDetails(
        stations=[
            StationCounts(station=name, decisions=stations[name])
            for name in sorted(stations, key=lambda name: (name is not None, name or ""))
        ],
        hours=[
            HourCounts(from_=clock.iso(number * HOUR_MS), decisions=hours[number]) for number in sorted(hours)
        ],
        rejects=[export.to_summary(row) for row in connection.execute(worst)],
    )


def _drift_now(drift: DriftMonitor, category: str, station: str | None) -> DriftNow | None:
    """How a station of a category is; of all of them one that alarms, if there is one."""
    state: DriftState | None
    if station is not None:
        state = drift.state(category, station)
    else:
        windows = drift.windows(category)
        state = next((one for one in windows if one.alarm), windows[0] if windows else None)
    return None if state is None else DriftNow.model_validate(state)


def _change(row: Mapping[str, Any]) -> ShiftChange:
    """An entry of the audit log without what only an administrator reads, such as polygons."""
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
