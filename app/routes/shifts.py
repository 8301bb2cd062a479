"""The report on a shift: what was inspected, how well, and what was changed meanwhile."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter

from app.access import Caller, MaySeeHistory
from app.database import clock
from app.dependencies import DriftPart, HistoryPart
from app.history import changes, export, reports, shift_details
from app.history.drift import Drift, State
from app.history.history import History
from app.history.reports import Shift, Span
from app.history.shift_details import Details
from app.openapi import documented
from app.problems import Problem
from app.routes.reports import rated
from app.routes.spans import From, OfStation, To, span
from app.schemas import reports as schemas

router = APIRouter(tags=["reports"])

SHIFT_MS: Final = 8 * 3_600_000
LONGEST_MS: Final = (31 * 24 + 2) * 3_600_000  # a month in which summer time ends is longer than its days
_MOST_CHANGES: Final = 100


@router.get("/v1/reports/shift", responses=documented("invalid-request", "internal", "history-unavailable"))
def get_shift(
    caller: MaySeeHistory,
    history: HistoryPart,
    drift: DriftPart,
    made_from: From = None,
    made_before: To = None,
    station: OfStation = None,
) -> schemas.ShiftReport:
    """Sum up a shift by category: decisions by station and hour, overkill and escape, the worst parts.

    Also drift as it is now, and what was changed about models and thresholds. By default the last 8 hours.
    """
    return report(caller, history, drift, span(made_from, made_before, SHIFT_MS), station)


def report(
    caller: Caller, history: History, drift: Drift, asked: Span, station: str | None
) -> schemas.ShiftReport:
    """Sum up a time, of the categories that a caller may see.

    Raises:
        Problem: invalid-request, if it is longer than 31 days.
    """
    if asked.to_ms - asked.from_ms > LONGEST_MS:
        raise Problem("invalid-request", "query parameter from: a report covers 31 days at most")
    with history.database.read() as connection:
        whole = reports.complete(connection, asked)
        shifts = reports.shifts(connection, whole, caller.categories, station)
        parts = [shift_details.details(connection, one.category, whole, station) for one in shifts]
        changed = changes.changes(connection, asked, caller.categories, _MOST_CHANGES + 1)
    states = {shift.category: _told(drift, shift.category, station) for shift in shifts}
    return schemas.ShiftReport(
        from_=clock.iso(whole.from_ms),
        to=clock.iso(whole.to_ms),
        station=station,
        categories=[
            _category(shift, part, states[shift.category]) for shift, part in zip(shifts, parts, strict=True)
        ],
        changes=[_change(row) for row in changed[-_MOST_CHANGES:]],
        more_changes=len(changed) > _MOST_CHANGES,
    )


def _told(drift: Drift, category: str, station: str | None) -> State | None:
    """How a station of a category is; of all of them one that alarms, if there is one."""
    if station is not None:
        return drift.state(category, station)
    windows = drift.windows(category)
    return next((one for one in windows if one.alarm), windows[0] if windows else None)


def _category(shift: Shift, part: Details, drift: State | None) -> schemas.ShiftCategory:
    return schemas.ShiftCategory(
        category=shift.category,
        versions=dict(shift.versions),
        stations=[
            schemas.StationCounts(station=name, decisions=dict(counts))
            for name, counts in part.stations.items()
        ],
        more_stations=part.more_stations,
        hours=[
            schemas.HourCounts(from_=clock.iso(begin), decisions=dict(counts))
            for begin, counts in part.hours.items()
        ],
        rejects=[export.summary(row) for row in part.rejects],
        drift=None
        if drift is None
        else schemas.DriftNow(
            alarm=drift.alarm,
            alarm_since=None if drift.alarm_since is None else clock.iso(clock.time_of(drift.alarm_since)),
            station=drift.station,
        ),
        **rated(shift.strata),
    )


def _change(row: Mapping[str, Any]) -> schemas.ShiftChange:
    """An entry of the audit log without what only an administrator reads, such as polygons."""
    detail = changes.detail(row)
    before, after = changes.held(row["action"], row["target"], detail)
    return schemas.ShiftChange(
        created=clock.iso(row["created_ms"]),
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        station=detail.get("station"),
        reason=detail.get("reason"),
        before=before,
        after=after,
    )
