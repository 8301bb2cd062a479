"""The report on a shift, made to be printed."""

import re
from datetime import datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.access import MaySeeHistory
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

# The actor of the audit log is a key's id and its name; people know the name.
_KEY_ID: Final = re.compile(r"[0-9a-f]{16} ")

Zone = Annotated[str, Query(alias="tz", max_length=64, description="Whose days the bars are, by IANA.")]


@router.get("/report", response_class=Response)
async def show_report(
    caller: MaySeeHistory,
    page: PagePart,
    history: HistoryDep,
    drift: DriftDep,
    asked: ShiftSpan,
    station: OfStation = None,
    zone: Zone = "UTC",
) -> Response:
    """Show what was inspected in a shift, and what was changed."""
    days_of = _zone(zone)

    def read() -> tuple[ShiftReport, list[str]]:
        # A form sends what was left open as empty text.
        report = shift_report(history.database, drift, asked, caller.categories, station or None)
        with history.database.read() as connection:
            return report, browsing.list_stations(connection, caller.categories)

    # Not among the threads that predictions look up their idempotency keys in: this may take a while.
    report, stations = await run_in_threadpool(read)
    # Bars begin with what there is: an hour that retention has deleted is not one without parts.
    begin_ms = clock.from_datetime(datetime.fromisoformat(report.from_))
    shown = TimeSpan(min(begin_ms, asked.to_ms), asked.to_ms)
    return page.render(
        "report.html",
        report=report,
        begin=clock.iso(asked.from_ms),
        end=clock.iso(asked.to_ms),
        cut=report.from_ != clock.iso(asked.from_ms),
        charts={one.category: bars(one.hours, shown, days_of) for one in report.categories},
        zone=days_of.key,
        stations=stations,
        who=lambda actor: _KEY_ID.sub("", actor, count=1),
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")  # a browser may know zones that this machine does not, and some name none
