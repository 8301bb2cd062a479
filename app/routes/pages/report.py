"""The printable shift report."""

import re
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MaySeeHistory
from app.database import clock
from app.dependencies import DriftDep, HistoryDep
from app.history import browsing
from app.history.decision_counts import TimeSpan
from app.history.shift_report import shift_report
from app.routes.parameters import OfStation, ShiftSpan
from app.schemas.reports import ShiftReport
from app.web.page import PagePart, PageRoute
from app.web.shift_chart import bars

router = APIRouter(route_class=PageRoute)

# The audit log names an actor by the key's id and name. The page shows the name alone.
_KEY_ID: Final = re.compile(r"[0-9a-f]{16} ")

Zone = Annotated[
    str, Query(alias="tz", max_length=64, description="IANA time zone of the days in the chart.")
]


@router.get("/report", response_class=Response)
async def show_report(
    caller: MaySeeHistory,
    page: PagePart,
    history: HistoryDep,
    drift: DriftDep,
    span: ShiftSpan,
    station: OfStation = None,
    zone: Zone = "UTC",
) -> Response:
    """Show the inspections and the changes of a shift."""
    time_zone = _parse_zone(zone)

    def read() -> tuple[ShiftReport, list[str]]:
        # A form sends empty text for a field that is not set.
        report = shift_report(history.database, drift, span, caller.categories, station or None)
        with history.database.read() as connection:
            return report, browsing.list_stations(connection, caller.categories)

    # The query may be slow: it must not occupy the threads in which predictions look up idempotency keys.
    report, stations = await run_in_threadpool(read)
    # The chart begins with the first stored hour: hours that retention has deleted are not empty hours.
    begin_ms = clock.from_datetime(datetime.fromisoformat(report.from_))
    shown = TimeSpan(min(begin_ms, span.to_ms), span.to_ms)
    query = {"from": clock.iso(span.from_ms), "to": clock.iso(span.to_ms)}
    if report.station:
        query["station"] = report.station
    return page.render(
        "report.html",
        report=report,
        begin=clock.iso(span.from_ms),
        end=clock.iso(span.to_ms),
        query=urlencode(query),
        cut=report.from_ != clock.iso(span.from_ms),
        charts={one.category: bars(one.hours, shown, time_zone) for one in report.categories},
        zone=time_zone.key,
        stations=stations,
        who=lambda actor: _KEY_ID.sub("", actor, count=1),
    )


def _parse_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")  # the browser sent no zone, or one that this machine does not know
